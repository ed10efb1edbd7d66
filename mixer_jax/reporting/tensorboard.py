"""The metrics of a run as TensorBoard scalars."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixer_jax.messages import warn
from mixer_jax.records import Epoch
from mixer_jax.reporting.observer import Observer

SCALARS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")


class TensorBoard(Observer):
    """An observer that writes each epoch's metrics at its last step, and stops with one warning if writing fails."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._first_step = 1
        self._writer: Any = None
        self._failed = False

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        """Remember the first step whose scalars, if an earlier process wrote any, are obsolete."""
        self._first_step = 1 + (history[-1].step if history else 0)

    def epoch(self, record: Epoch, best: Epoch) -> None:
        """Write the scalars of an epoch."""
        if self._failed:
            return
        try:
            if self._writer is None:
                self._writer = self._open()
            self._write(record)
        except OSError as error:
            warn(f"no more TensorBoard scalars: {error.strerror}; metrics.jsonl has them")
            self._failed = True

    def _write(self, record: Epoch) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for key in SCALARS:
            group, _, name = key.partition("_") if key.startswith(("train_", "val_")) else ("training", "", key)
            summary = scalar(f"{group}/{name}", getattr(record, key))
            self._writer.write_event(Event(wall_time=time.time(), step=record.step, summary=summary))
        self._writer.flush()

    def _open(self) -> Any:
        # tensorboardX writes the format without a framework; TensorFlow's, PyTorch's and clu's writers need theirs.
        # Its SummaryWriter waits forever for its own thread once the disk is full.
        from tensorboardX.event_file_writer import EventsWriter  # here, so that the start of a run does not wait for it
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._directory.mkdir(parents=True, exist_ok=True)
        writer = EventsWriter(str(self._directory / "events"))
        # Scalars that an earlier process wrote after the checkpoint will be written again.
        start = SessionLog(status=SessionLog.START)
        writer.write_event(Event(wall_time=time.time(), step=self._first_step, session_log=start))
        return writer

    def closed(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
