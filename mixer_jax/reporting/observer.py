"""The events of a training run, for whatever shows or records them."""

from collections.abc import Sequence

from mixer_jax.records import Epoch


class Observer:
    """Receives the events of one run; by default it ignores them."""

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        """Training starts, or resumes, at `step`, after the epochs of `history`."""

    def progress(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """`step` steps are done; the other numbers are of the last dispatch, accuracy in percent."""

    def validating(self) -> None:
        """The training steps of an epoch are done; the validation images are being scored."""

    def epoch(self, record: Epoch, best: Epoch) -> None:
        """An epoch is over; `best` is the best one so far, possibly the same."""

    def note(self, line: str) -> None:
        """Show a line of information, such as what takes the next seconds."""

    def warning(self, message: str) -> None:
        """Show a problem that does not stop the training."""

    def closed(self) -> None:
        """Receive no more events."""
