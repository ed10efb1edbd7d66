"""The compiled device programs of a run."""

import dataclasses
from typing import Any

from mixer_jax.training.parallel import DataParallel
from mixer_jax.training.step import Steps

TRAIN, EVALUATE, PREDICT = "train", "evaluate", "predict"
Program = Any  # a compiled function of (state or parameters, resident, chunk, num_steps), as the methods of `Steps`


@dataclasses.dataclass(frozen=True)
class Programs:
    """The methods of `Steps`, each compiled on first use for all devices.

    Attributes:
      train: takes over the memory of the state that it is given.
      evaluate, predict: leave the parameters as they are.
    """

    train: Program
    evaluate: Program
    predict: Program

    @classmethod
    def compiled(cls, steps: Steps, parallel: DataParallel) -> "Programs":
        """Return the programs of one run."""
        names = (TRAIN, EVALUATE, PREDICT)
        return cls(*(parallel.compile(getattr(steps, name), donate_state=name == TRAIN) for name in names))
