"""The training loop: epochs, evaluation, checkpoints, early stopping, and the results at the end.

It trains one run, or several that differ in their seed only and advance together, each as it would alone.
"""

import dataclasses
import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory, best_epoch
from mixer_jax.storage import on_network
from mixer_jax.training.checkpoints import Checkpoint, Checkpoints
from mixer_jax.training.ending import OVER, stale
from mixer_jax.training.epoch import Diverged, Observer, Pace, Record, Sums, require_finite, train_steps
from mixer_jax.training.interruption import Interrupted, StopRequest, stopping_at_once
from mixer_jax.training.parallel import to_host
from mixer_jax.training.processes import Agreement, is_first
from mixer_jax.training.restore import differences, newest
from mixer_jax.training.results import Outcome, hand_out, score
from mixer_jax.training.trainer import Trainer

LOCAL_MINUTES, NETWORK_MINUTES = 5.0, 20.0  # between checkpoints, where the config does not say


def fit(
    trainer: Trainer, directory: RunDirectory, runs: Sequence[RunDirectory], observers: Sequence[Observer] = ()
) -> list[Outcome]:
    """Trains to the end, from the last checkpoint in the directory if there is one.

    Args:
      trainer: of one seed or several.
      directory: whose checkpoints are those of all seeds together.
      runs: of each seed, in order; for a single one the directory itself.
      observers: are told how it goes.

    Returns:
      Of each run what was measured, and what the best epoch's parameters made of the test images.

    Raises:
      UserError: if no checkpoint is whole, or what has to be kept cannot be written.
      Diverged: if a loss is not finite; the message names the step and the last good checkpoint.
      Interrupted: by SIGTERM, SIGHUP or Ctrl-C, when the state is saved.
    """
    checkpoints = Checkpoints(directory.checkpoints)
    try:
        with StopRequest() as stop:
            return _Training(trainer, runs, observers, checkpoints, stop).to_the_end()
    finally:
        checkpoints.close()
        for observer in observers:
            observer.closed()


class _Training:
    """A training under way.

    Attributes:
      step: steps done.
      state: after them, on the devices; of a run that has stopped early, after those it took.
      best: the parameters of each run's best epoch, as host arrays; () before the first epoch is over.
      histories: the lines of each run's metrics.jsonl.
      sums: of the epoch that is not over.
    """

    def __init__(
        self,
        trainer: Trainer,
        runs: Sequence[RunDirectory],
        observers: Sequence[Observer],
        checkpoints: Checkpoints,
        stop: StopRequest,
    ):
        self.trainer, self.runs, self.observers = trainer, runs, observers
        self.checkpoints, self._stop = checkpoints, stop
        self._pace, self._asked, self._time_is_up = Pace(trainer.max_steps), 0, False
        self._agreement = Agreement()
        self._num_epochs = math.ceil(trainer.config.epochs)
        self._behind: set[int] = set()  # runs of whose metrics not all lines are written
        self._minutes = trainer.config.checkpoint_minutes
        if self._minutes is None:
            self._minutes = NETWORK_MINUTES if on_network(checkpoints.directory) else LOCAL_MINUTES
        self._restore()

    def to_the_end(self) -> list[Outcome]:
        """Trains, evaluates and saves until all runs are over; returns what `fit` does."""
        self._note("Compiling")
        self.state, compile_seconds = self.trainer.compile(self.state)
        for observer in self.observers:
            observer.started(self.histories, self.step, compile_seconds)
        self._saved_at = time.monotonic()
        while not all(map(self._over, self.histories)):
            self._pause()
            self._stop_if_asked()
            try:
                self._epoch()
            except Diverged as error:
                self._wait()
                epoch = 1 + max(map(len, self.histories))
                raise Diverged(f"{error} (epoch {epoch}); {self._last_good()}") from None
        self._save()
        if not self._wait():
            raise UserError(f"the end is not saved; {self._last_good()}; mend that, and the same command goes on there")
        for i in self._behind:
            self.runs[i].write_metrics(self.histories[i])
        self._tell_the_end()
        with stopping_at_once(OVER):
            if self._stop.signal:
                raise Interrupted(OVER, self._stop.signal)
            outcomes = score(self.trainer, self.state, self.best, self.histories)
            if len(self.runs) > 1 and is_first():
                hand_out(self.trainer, self.state, self.best, self.histories, self.runs)
        for outcome in outcomes:
            outcome.measured["compile_seconds"] = round(compile_seconds, 2)
        return outcomes

    def _tell_the_end(self) -> None:
        patience = self.trainer.config.early_stopping_patience
        if early := [history for history in self.histories if len(history) < self._num_epochs]:
            last, best = early[0][-1]["epoch"], best_epoch(early[0])["epoch"]
            what, than = f"epoch {last} of {self._num_epochs}", f"epoch {best}"
            if len(self.runs) > 1:
                what, than = f"{len(early)} of {len(self.runs)} seeds", "their best"
            self._note(f"Stopped early: {what}; {patience} epochs brought nothing better than {than} on validation")
        self._note(f"Scoring {len(self.trainer.dataset.test):,} test images")

    def _restore(self) -> None:
        found = newest(self.checkpoints, self.trainer, self._warn)
        if found is None:
            self.step, self.state, self.best = 0, self.trainer.init(), ()
            self.histories, self.sums = [[] for _ in self.runs], Sums.zero(len(self.runs))
        else:
            self.step, progress = found.step, found.progress
            self.best = to_host(found.best)  # which `_keep_best` writes into
            self.state = self.trainer.place(found.state)
            try:
                self.histories, self.sums = progress["histories"], Sums(**progress["sums"])
                moved = list(differences(progress["ran_on"], self.trainer.runs_on))
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"checkpoint {self.step} in {self.checkpoints.directory} is not of this program"
                ) from error
            if moved:
                self._warn(f"the checkpoint is from elsewhere ({'; '.join(moved)}): it goes on, but not bit for bit")
        self._saved = (self.step, self._epochs_done()) if found else None
        for run, history in zip(self.runs, self.histories, strict=True):
            if is_first():
                run.write_metrics(history)

    def _over(self, history: list[Record]) -> bool:
        return len(history) >= self._num_epochs or stale(history, self.trainer.config.early_stopping_patience)

    def _epochs_done(self) -> int:
        return max(map(len, self.histories))

    def _epoch(self) -> None:
        """Trains to the end of the epoch and evaluates."""
        config, trainer = self.trainer.config, self.trainer
        going = np.array([not self._over(history) for history in self.histories])
        epoch, every = 1 + self._epochs_done(), config.checkpoint_steps
        end = trainer.plans[0].steps(min(epoch, config.epochs))
        while self.step < end:
            until = min(end, (self.step // every + 1) * every) if every else end
            self.state, self.step = train_steps(
                trainer,
                self.state,
                self.step,
                until,
                self._pace,
                self.sums,
                going,
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
        losses = np.array([[val["loss"]] for val in scores])
        require_finite(losses, going, trainer.seeds, end, "the validation loss")
        records, rate = self.sums.records(config.batch_size), float(trainer.schedule(end - 1))
        self.sums = Sums.zero(len(self.runs))
        for i in np.flatnonzero(going):
            val = {"val_loss": scores[i]["loss"], "val_accuracy": scores[i]["accuracy"]}
            self.histories[i].append({"epoch": epoch, "step": end} | records[i] | {"learning_rate": rate} | val)
            if is_first():
                self._write_metrics(i)
        best, latest = [best_epoch(history) for history in self.histories], [history[-1] for history in self.histories]
        self._keep_best(going & [b is last for b, last in zip(best, latest, strict=True)])
        for observer in self.observers:
            observer.epoch(latest, best)
        if self._due():
            self._save()

    def _write_metrics(self, i: int) -> None:
        """Adds an epoch's line to a run's metrics; where that cannot be, all lines are written with the next."""
        run, history = self.runs[i], self.histories[i]
        try:
            if i in self._behind:
                run.write_metrics(history)
            else:
                run.append_metrics(history[-1])
            self._behind.discard(i)
        except UserError as error:
            self._behind.add(i)
            self._warn(f"{error}; training goes on")

    def _keep_best(self, improved: np.ndarray) -> None:
        if not improved.any():
            return
        evaluated = to_host(self.state.evaluated)
        if len(self.runs) == 1 or self.best == ():
            self.best = evaluated
        else:
            for old, new in zip(jax.tree.leaves(self.best), jax.tree.leaves(evaluated), strict=True):
                old[improved] = new[improved]

    def _pause(self) -> bool:
        """Whether a checkpoint is due, or a process is asked to stop; all of them do, and keep the same pace."""
        time_is_up = (time.monotonic() - self._saved_at) / 60 >= self._minutes
        settled = self._agreement.settle(self._stop.signal, time_is_up, self._pace.steps)
        self._asked, self._time_is_up, self._pace.steps = settled
        return bool(self._asked) or self._time_is_up

    def _due(self) -> bool:
        every = self.trainer.config.checkpoint_steps
        return self._time_is_up or bool(every and self.step % every == 0)

    def _save(self) -> None:
        """Starts to write a checkpoint, unless there is one of here."""
        here = (self.step, self._epochs_done())
        if here != self._saved and is_first():
            self._write(here)
        self._saved_at, self._time_is_up = time.monotonic(), False

    def _write(self, here: tuple[int, int]) -> None:
        progress = {
            "step": self.step,
            "histories": self.histories,
            "sums": dataclasses.asdict(self.sums),
            "ran_on": self.trainer.runs_on,
        }
        self._wait()
        self.checkpoints.save(Checkpoint(self.step, to_host(self.state), to_host(self.best), progress))
        self._saved = here

    def _wait(self) -> bool:
        """Returns when the last checkpoint is on disk, whether it is."""
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
        if not self._asked:
            return
        self._save()
        self._wait()
        message = f"stopped at step {self.step} of {self.trainer.total_steps}, {self._last_good()}"
        raise Interrupted(f"{message}: the same command goes on from there", self._asked)

    def _note(self, line: str) -> None:
        for observer in self.observers:
            observer.note(line)

    def _warn(self, message: str) -> None:
        for observer in self.observers:
            observer.warning(message)

    def _last_good(self) -> str:
        steps = self.checkpoints.steps()
        if not steps:
            return "no checkpoint had been written yet"
        return f"the last good checkpoint is of step {steps[-1]}, in {self.checkpoints.directory}"
