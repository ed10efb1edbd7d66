"""A run's metrics for TensorBoard, of each epoch and of single steps, and pictures when the run ends."""

import contextlib
import importlib
import threading
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image

from mixer_jax.records import Epoch, StepMetrics
from mixer_jax.reporting.steps import StepObserver

# The fields of an epoch and of a step, with the names of their charts.
OF_EPOCH = {
    "train_loss": "train/loss", "train_accuracy": "train/accuracy", "val_loss": "val/loss",
    "val_accuracy": "val/accuracy", "learning_rate": "training/learning_rate",
    "images_per_second": "training/images_per_second",
}  # fmt: skip
OF_STEP = {name: f"step/{name}" for name in ("loss", "accuracy", "gradient_norm", "learning_rate", "images_per_second")}

MOST, BINS = 2**20, 64  # values of a parameter that a histogram counts, and its bins


class TensorBoard(StepObserver):
    """An observer that writes the metrics of single steps, and those of each epoch at its last step.

    If writing fails, it warns once and writes no more.
    """

    def __init__(self, directory: Path, learning_rates: Mapping[int, float]):
        super().__init__(learning_rates, "no more scalars for TensorBoard; metrics.jsonl and steps.jsonl have them")
        self._directory = directory
        self._first_step = 1
        self._writer: Any = None
        # tensorboardX imports PyTorch if it is installed, which takes seconds: so it is imported while XLA compiles.
        self._import = threading.Thread(target=importlib.import_module, args=("tensorboardX",), daemon=True)
        self._import.start()

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        """Remember the next step: scalars that an earlier process wrote from that step on are obsolete."""
        self._first_step = 1 + step

    def epoch(self, record: Epoch, best: Epoch) -> None:
        self.attempt(lambda: self._write(OF_EPOCH, [record]))

    def steps(self, metrics: Sequence[StepMetrics]) -> None:
        self.attempt(lambda: self._write(OF_STEP, metrics))

    def _write(self, names: dict[str, str], records: Sequence[Epoch | StepMetrics]) -> None:
        self._import.join()  # two threads that import parts of a package in different orders would block each other
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        if self._writer is None:
            self._writer = _event_file(self._directory)
            # Scalars that an earlier process wrote after the checkpoint will be written again.
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=self._first_step, session_log=start))
        for record in records:
            for key, name in names.items():
                summary = scalar(name, getattr(record, key))
                self._writer.write_event(Event(wall_time=time.time(), step=record.step, summary=summary))
        self._writer.flush()

    def closed(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


def write_pictures(directory: Path, step: int, pictures: Mapping[str, bytes], params: Any) -> None:
    """Write pictures (PNG files by their names), and histograms of the parameters, to an event file of their own."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import histogram

    summaries = []
    for name, png in pictures.items():
        with Image.open(BytesIO(png)) as image:
            encoded = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=png)
        summaries.append(Summary(value=[Summary.Value(tag=name, image=encoded)]))
    for name, x in flatten_dict(params, sep="/").items():
        values = np.asarray(x, np.float32).reshape(-1)
        summaries.append(histogram(f"parameters/{name}", values[:: max(1, len(values) // MOST)], bins=BINS))
    writer = _event_file(directory, ".pictures")
    for summary in summaries:
        writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()


def _event_file(directory: Path, suffix: str = "") -> Any:
    # tensorboardX writes the format without a framework; TensorFlow's, PyTorch's and clu's writers need theirs.
    # Its SummaryWriter waits forever for its own thread once the disk is full.
    from tensorboardX.event_file_writer import EventsWriter

    directory.mkdir(parents=True, exist_ok=True)
    return EventsWriter(str(directory / "events"), filename_suffix=suffix)
