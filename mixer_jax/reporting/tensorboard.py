"""The metrics of a run as TensorBoard scalars."""

from pathlib import Path
from typing import Any

# tensorboardX writes the format by itself; the writers of TensorFlow, PyTorch and clu bring their frameworks along.
from tensorboardX import SummaryWriter

SCALARS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")


class TensorBoard:
    """Writes each epoch's metrics at its step, as an observer of `mixer_jax.training`."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._writer: SummaryWriter | None = None

    def started(self, history: list[dict[str, Any]], compile_seconds: float) -> None:
        step = history[-1]["step"] if history else 0
        # What an earlier process wrote after the checkpoint will be written again.
        self._writer = SummaryWriter(str(self._directory), purge_step=step + 1)

    def progress(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        pass

    def epoch(self, record: dict[str, Any], best: dict[str, Any]) -> None:
        for key in SCALARS:
            group, _, name = key.partition("_") if key.startswith(("train_", "val_")) else ("training", "", key)
            self._writer.add_scalar(f"{group}/{name}", record[key], record["step"])

    def closed(self) -> None:
        if self._writer is not None:
            self._writer.close()
