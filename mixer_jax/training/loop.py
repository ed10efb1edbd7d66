"""The training loop of one run: epochs, validation, checkpoints, early stopping."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixer_jax.checkpoints import Checkpoint, Checkpoints
from mixer_jax.errors import UserError
from mixer_jax.records import Epoch, best_epoch
from mixer_jax.reporting.observer import Observer
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import on_network
from mixer_jax.training.ending import stale
from mixer_jax.training.epoch import DispatchLength, Diverged, Sums, require_finite, train_steps
from mixer_jax.training.interruption import Interrupted, StopRequest
from mixer_jax.training.parallel import to_host
from mixer_jax.training.processes import Agreement, is_first
from mixer_jax.training.restore import Progress, differences, newest
from mixer_jax.training.step import TrainState
from mixer_jax.training.trainer import Trainer

LOCAL_MINUTES, NETWORK_MINUTES = 5.0, 20.0  # between checkpoints, if the config does not set them


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run after its last training step, not yet scored on the test set.

    Attributes:
      state: the state after the last epoch, on the devices.
      best: the parameters of the best epoch, as host arrays.
      history: the metrics of all epochs.
      compile_seconds: time spent on compiling in this process.
    """

    state: TrainState
    best: Any
    history: list[Epoch]
    compile_seconds: float


def train_epochs(
    trainer: Trainer,
    run: RunDirectory,
    stop: StopRequest,
    observers: Sequence[Observer] = (),
    length: DispatchLength | None = None,
) -> Trained:
    """Train to the end, from the newest checkpoint in the run directory if there is one.

    Args:
      trainer: the run's trainer.
      run: the run directory, for metrics and checkpoints.
      stop: records signals; after a signal, the state is saved and training stops.
      observers: receive the events of the run.
      length: the length of dispatches, if it is shared between seeds.

    Returns:
      The state after the last step, and the parameters of the best epoch.

    Raises:
      UserError: if no checkpoint is intact, or if the final state cannot be saved.
      Diverged: if a loss is not finite; the message names the step and the last good checkpoint.
      Interrupted: by SIGTERM, SIGHUP or Ctrl-C, once the state is saved.
    """
    checkpoints = Checkpoints(run.checkpoints)
    try:
        loop = _Loop(trainer, run, observers, checkpoints, stop, length or DispatchLength(trainer.max_steps))
        return loop.run_to_the_end()
    finally:
        checkpoints.close()
        for observer in observers:
            observer.closed()


class _Loop:
    """A run in training.

    Attributes:
      step: steps done.
      state: the state after these steps, on the devices.
      best: the parameters of the best epoch, as host arrays; () before the first epoch is over.
      history: the epochs so far, as in metrics.jsonl.
      sums: the metrics of the unfinished epoch.
    """

    step: int
    state: TrainState
    best: Any
    history: list[Epoch]
    sums: Sums

    def __init__(
        self,
        trainer: Trainer,
        run: RunDirectory,
        observers: Sequence[Observer],
        checkpoints: Checkpoints,
        stop: StopRequest,
        length: DispatchLength,
    ):
        self.trainer, self.run, self.observers = trainer, run, observers
        self.checkpoints, self._stop, self._length = checkpoints, stop, length
        self._agreement = Agreement()
        self._signal, self._time_is_up = 0, False
        self._num_epochs, self._is_first_epoch = math.ceil(trainer.config.epochs), True
        self._metrics_behind = False  # whether metrics.jsonl lacks lines that could not be written
        self._minutes = trainer.config.checkpoint_minutes
        if self._minutes is None:
            self._minutes = NETWORK_MINUTES if on_network(checkpoints.directory) else LOCAL_MINUTES
        self._restore()

    def run_to_the_end(self) -> Trained:
        """Train, validate and save until the run is over."""
        compile_seconds = 0.0
        if not self._over():
            self._note("Compiling")
            self.state, compile_seconds = self.trainer.compile(self.state)
        for observer in self.observers:
            observer.started(self.history, self.step, compile_seconds)
        self._saved_at = time.monotonic()
        while not self._over():
            self._pause()
            self._stop_if_asked()
            try:
                self._epoch()
            except Diverged as error:
                self._wait()
                raise Diverged(f"{error} (epoch {1 + len(self.history)}); {self._last_good()}") from None
        if len(self.history) < self._num_epochs:
            last, best = self.history[-1].epoch, best_epoch(self.history).epoch
            self._note(
                f"Stopped early after epoch {last} of {self._num_epochs}: no validation score better than that of "
                f"epoch {best} in {self.trainer.config.early_stopping_patience} epochs"
            )
        if self._unsaved():
            self._note("Writing the last checkpoint")
        self._save()
        if not self._wait():
            raise UserError(
                f"the final checkpoint could not be saved; {self._last_good()}; run the same command again to resume"
            )
        if self._metrics_behind:
            self.run.write_metrics(self.history)
        return Trained(self.state, self.best, self.history, compile_seconds)

    def _restore(self) -> None:
        self.step, self.best, self.history, self.sums = 0, (), [], Sums()
        found = newest(self.checkpoints, self.trainer.state_shapes, self._warn)
        if found is None:
            self.state = self.trainer.init()
        else:
            self.step, self.best, self.state = found.step, found.best, self.trainer.place(found.state)
            progress = Progress.of(found, self.checkpoints.directory)
            self.history, self.sums = progress.history, progress.sums
            if moved := list(differences(progress.ran_on, self.trainer.runs_on)):
                why = f"the checkpoint was written on other hardware or software ({'; '.join(moved)})"
                self._warn(f"{why}: resuming, but not bit for bit")
        self._saved: tuple[int, int] | None = (self.step, len(self.history)) if found else None
        if is_first():
            self.run.write_metrics(self.history)

    def _over(self) -> bool:
        patience = self.trainer.config.early_stopping_patience
        return len(self.history) >= self._num_epochs or stale(self.history, patience)

    def _epoch(self) -> None:
        """Train to the end of the epoch and validate."""
        config, trainer = self.trainer.config, self.trainer
        epoch, every = 1 + len(self.history), config.checkpoint_steps
        end = trainer.sampler.steps_in(min(epoch, config.epochs))
        while self.step < end:
            until = min(end, (self.step // every + 1) * every) if every else end
            self.state, self.step = train_steps(
                trainer,
                self.state,
                self.step,
                until,
                self._length,
                self.sums,
                self.observers,
                self._pause,
                self._agreement,
            )
            if self.step < end and self._due():
                self._save()
            self._stop_if_asked()
        for observer in self.observers:
            observer.validating()
        scores = trainer.evaluate(self.state.evaluated, trainer.dataset.val)
        require_finite(np.array([scores.loss]), end, "the validation loss")
        record = self.sums.epoch(epoch, end, config.batch_size, float(trainer.schedule(end - 1)), scores)
        self.sums = Sums()
        self.history.append(record)
        if is_first():
            self._write_metrics()
        best = best_epoch(self.history)
        if best is record:
            self.best = to_host(self.state.evaluated)
        for observer in self.observers:
            observer.epoch(record, best)
        if self._is_first_epoch and (line := trainer.decoding()):
            self._note(f"In this epoch, {line}")
        self._is_first_epoch = False
        if self._due():
            self._save()

    def _write_metrics(self) -> None:
        """Append the last epoch to metrics.jsonl; if that failed for an earlier one, rewrite the file instead."""
        try:
            if self._metrics_behind:
                self.run.write_metrics(self.history)
            else:
                self.run.append_metrics(self.history[-1])
            self._metrics_behind = False
        except UserError as error:
            self._metrics_behind = True
            self._warn(f"{error}; training continues")

    def _pause(self) -> bool:
        """Return, with the same result on all processes, whether a checkpoint is due or a process was asked to stop."""
        time_is_up = (time.monotonic() - self._saved_at) / 60 >= self._minutes
        self._signal, due, self._length.steps = self._agreement.settle(
            self._stop.signal, time_is_up, self._length.steps
        )
        self._time_is_up |= due
        return bool(self._signal) or self._time_is_up

    def _due(self) -> bool:
        every = self.trainer.config.checkpoint_steps
        return self._time_is_up or bool(every and self.step % every == 0)

    def _save(self) -> None:
        """Start to write a checkpoint, unless the current state is saved already."""
        if self._unsaved() and is_first():
            self._wait()
            for observer in self.observers:
                observer.saving()
            progress = Progress(self.history, self.sums, self.trainer.runs_on).to_json(self.step)
            self.checkpoints.save(Checkpoint(self.step, to_host(self.state), self.best, progress))
            self._saved = (self.step, len(self.history))
        self._saved_at, self._time_is_up = time.monotonic(), False

    def _unsaved(self) -> bool:
        return self._saved != (self.step, len(self.history))

    def _wait(self) -> bool:
        """Wait for the newest checkpoint, and return whether it is on disk."""
        try:
            remarks = self.checkpoints.wait()
        except OSError as error:
            self._saved = None
            self._warn(f"{error}; {self._last_good()}")
            return False
        for remark in dict.fromkeys(remarks):
            self._warn(remark)
        return True

    def _stop_if_asked(self) -> None:
        if not self._signal:
            return
        self._save()
        self._wait()
        message = f"stopped at step {self.step} of {self.trainer.total_steps}; {self._last_good()}"
        again = "resume" if self.checkpoints.saved_steps() else "start over"
        raise Interrupted(f"{message}: run the same command again to {again}", self._signal)

    def _note(self, line: str) -> None:
        for observer in self.observers:
            observer.note(line)

    def _warn(self, message: str) -> None:
        for observer in self.observers:
            observer.warning(message)

    def _last_good(self) -> str:
        steps = self.checkpoints.saved_steps()
        if not steps:
            return "no checkpoint has been written yet"
        return f"the last good checkpoint is of step {steps[-1]}, in {self.checkpoints.directory}"
