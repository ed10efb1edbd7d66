"""The compiled device programs of a run."""

import dataclasses
from typing import Any

from mixer_jax.training.parallel import DataParallel
from mixer_jax.training.step import Steps

TRAIN, EVALUATE, PREDICT = "train", "evaluate", "predict"
Program = Any  # a compiled function with the arguments of a method of `Steps`


@dataclasses.dataclass(frozen=True)
class Programs:
    """The methods of `Steps`, each compiled on first use for all devices.

    Attributes:
      train: reuses the memory of its state argument, which is invalid afterwards.
      evaluate, predict: leave the parameters valid.
    """

    train: Program
    evaluate: Program
    predict: Program

    @classmethod
    def compiled(cls, steps: Steps, parallel: DataParallel) -> "Programs":
        """Return the compiled methods of `steps`."""
        names = (TRAIN, EVALUATE, PREDICT)
        return cls(*(parallel.compile(getattr(steps, name), donate_state=name == TRAIN) for name in names))
