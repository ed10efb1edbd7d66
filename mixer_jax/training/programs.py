"""The compiled device programs of a run."""

import dataclasses
from collections.abc import Callable, Mapping

from mixer_jax.training.parallel import DataParallel
from mixer_jax.training.step import Steps

TRAIN, EVALUATE, PREDICT = "train", "evaluate", "predict"
Program = Callable  # of (state or parameters, resident, chunk, num_steps), as the methods of `Steps`


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

    def replaced(self, programs: Mapping[str, Program]) -> "Programs":
        """Return these programs, with others in the place of those that are named."""
        return dataclasses.replace(self, **programs)
