"""The interface through which training reports its events."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mixer_jax.records import Epoch


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """The training steps of one dispatch.

    Attributes:
      first: the number of steps done before the dispatch.
      losses, accuracies, gradient_norms: (steps,) float64, as in `StepMetrics`.
      images_per_second: the throughput of the dispatch.
    """

    first: int
    losses: np.ndarray
    accuracies: np.ndarray
    gradient_norms: np.ndarray
    images_per_second: float

    @property
    def step(self) -> int:
        """The number of steps done after the dispatch."""
        return self.first + len(self.losses)


class Observer:
    """A receiver of the events of one run; this base class ignores them."""

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        """Handle the start of training.

        Args:
          history: the epochs that are done; empty unless the run resumes.
          step: the number of steps that are done.
          compile_seconds: the time to compile, in seconds.
        """

    def progress(self, dispatch: Dispatch) -> None:
        """Handle the end of a dispatch."""

    def validating(self) -> None:
        """Handle the start of validation, after the training steps of an epoch."""

    def epoch(self, record: Epoch, best: Epoch) -> None:
        """Handle the end of an epoch.

        Args:
          record: the record of the epoch.
          best: the record of the best epoch so far, possibly the same object.
        """

    def saving(self) -> None:
        """Handle the start of a checkpoint; earlier events are not reported again after a resume."""

    def note(self, line: str) -> None:
        """Handle a line of information, such as the name of a phase that takes seconds."""

    def warning(self, message: str) -> None:
        """Handle a problem that does not stop the training."""

    def closed(self) -> None:
        """Handle the end of the run, after which there are no more events."""
