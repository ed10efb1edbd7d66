"""The compiled device programs of a run."""

import dataclasses
from typing import Any

from mixer_jax.training.parallel import DataParallel
from mixer_jax.training.step import DeviceFunctions

TRAIN, EVALUATE, PREDICT = "train", "evaluate", "predict"
Program = Any  # a compiled function with the arguments of a method of `DeviceFunctions`


@dataclasses.dataclass(frozen=True)
class Programs:
    """The methods of `DeviceFunctions`, each compiled on first use for all devices.

    Attributes:
      train: reuses the memory of its state argument, which is invalid afterwards.
      evaluate, predict: leave the parameters valid.
    """

    train: Program
    evaluate: Program
    predict: Program

    @classmethod
    def compiled(cls, functions: DeviceFunctions, parallel: DataParallel) -> "Programs":
        """Return the compiled methods of `functions`."""
        names = (TRAIN, EVALUATE, PREDICT)
        return cls(*(parallel.compile(getattr(functions, name), donate_state=name == TRAIN) for name in names))
