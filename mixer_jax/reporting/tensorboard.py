"""The metrics of a run as TensorBoard scalars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCALARS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")


class TensorBoard:
    """Writes each epoch's metrics at its step, as an observer of `mixer_jax.training`."""

    def __init__(self, directories: Sequence[Path]):
        """Takes a directory for each run."""
        self._directories = directories
        self._done: list[int] = []
        self._writers: list[Any] = []

    def started(self, histories: Sequence[list[dict[str, Any]]], step: int, compile_seconds: float) -> None:
        self._done = [history[-1]["step"] if history else 0 for history in histories]

    def progress(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        pass

    def epoch(self, latest: Sequence[dict[str, Any]], best: Sequence[dict[str, Any]]) -> None:
        self._writers = self._writers or self._opened()
        now = max(record["step"] for record in latest)
        for writer, record in zip(self._writers, latest, strict=True):
            if record["step"] < now:
                continue  # stopped early
            for key in SCALARS:
                group, _, name = key.partition("_") if key.startswith(("train_", "val_")) else ("training", "", key)
                writer.add_scalar(f"{group}/{name}", record[key], record["step"])

    def _opened(self) -> list[Any]:
        # tensorboardX writes the format by itself; the writers of TensorFlow, PyTorch and clu bring their frameworks.
        from tensorboardX import SummaryWriter  # only here: a run that starts should not wait for it

        # What an earlier process wrote after the checkpoint will be written again.
        both = zip(self._directories, self._done, strict=True)
        return [SummaryWriter(str(directory), purge_step=done + 1) for directory, done in both]

    def warning(self, message: str) -> None:
        pass

    def closed(self) -> None:
        for writer in self._writers:
            writer.close()
