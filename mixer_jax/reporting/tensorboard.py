"""The metrics of a run as TensorBoard scalars."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixer_jax.errors import warn

SCALARS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")


class TensorBoard:
    """Writes each epoch's metrics at its step, as an observer of `mixer_jax.training`; if it cannot, it warns once."""

    def __init__(self, directories: Sequence[Path]):
        """Takes a directory for each run."""
        self._directories = directories
        self._done: list[int] = []
        self._writers: list[Any] | None = None

    def started(self, histories: Sequence[list[dict[str, Any]]], step: int, compile_seconds: float) -> None:
        self._done = [history[-1]["step"] if history else 0 for history in histories]

    def epoch(self, latest: Sequence[dict[str, Any]], best: Sequence[dict[str, Any]]) -> None:
        try:
            if self._writers is None:
                self._writers = self._opened()
            self._write(latest)
        except OSError as error:
            warn(f"no more TensorBoard scalars: {error.strerror}; metrics.jsonl has them")
            self._writers = []

    def _write(self, latest: Sequence[dict[str, Any]]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        now = max(record["step"] for record in latest)
        for writer, record in zip(self._writers, latest, strict=False):
            if record["step"] < now:
                continue  # stopped early
            for key in SCALARS:
                group, _, name = key.partition("_") if key.startswith(("train_", "val_")) else ("training", "", key)
                summary = scalar(f"{group}/{name}", record[key])
                writer.write_event(Event(wall_time=time.time(), step=record["step"], summary=summary))
            writer.flush()

    def _opened(self) -> list[Any]:
        # tensorboardX writes the format by itself; the writers of TensorFlow, PyTorch and clu bring their frameworks.
        # Its SummaryWriter has a thread, for which it waits without end once the disk is full.
        from tensorboardX.event_file_writer import EventsWriter  # only here: a run that starts should not wait for it
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        writers = []
        for directory, done in zip(self._directories, self._done, strict=True):
            directory.mkdir(parents=True, exist_ok=True)
            writers.append(EventsWriter(str(directory / "events")))
            # What an earlier process wrote after the checkpoint will be written again.
            start = SessionLog(status=SessionLog.START)
            writers[-1].write_event(Event(wall_time=time.time(), step=done + 1, session_log=start))
        return writers

    def closed(self) -> None:
        for writer in self._writers or ():
            with contextlib.suppress(OSError):
                writer.close()

    def ignore(self, *told: object) -> None:
        pass

    progress = validating = note = warning = ignore
