"""The training loop: epochs, evaluation, checkpoints, early stopping, and the results at the end."""

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from mixer_jax.run_directory import RunDirectory, best_epoch
from mixer_jax.training.checkpoints import Checkpoints
from mixer_jax.training.step import TrainState
from mixer_jax.training.trainer import Trainer

SECONDS_PER_DISPATCH = 0.5  # long beside what a dispatch costs, short enough to show progress

Record = dict[str, Any]


class Diverged(Exception):
    """The loss is no longer a number."""


class Pace:
    """How many steps make a dispatch of about SECONDS_PER_DISPATCH, learned from the last ones."""

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.steps = 1

    def learn(self, num_steps: int, seconds: float) -> None:
        """Is told that a dispatch of `num_steps` took so long."""
        fitting = int(SECONDS_PER_DISPATCH * num_steps / seconds)
        self.steps = max(1, min(fitting, 4 * self.steps, self.max_steps))


class Observer(Protocol):
    """Is told how training goes."""

    def started(self, history: list[Record], compile_seconds: float) -> None:
        """Training goes on after the epochs of `history`."""

    def progress(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """So many steps are done; the rest is of the last dispatch, accuracy in percent."""

    def epoch(self, record: Record, best: Record) -> None:
        """An epoch is over; `best` is the record of the best so far, which may be the same."""

    def closed(self) -> None:
        """Nothing more will come."""


def fit(trainer: Trainer, run: RunDirectory, observers: Sequence[Observer] = ()) -> Record:
    """Trains to the end, from the last checkpoint in the run directory if there is one.

    Returns:
      The measured part of results.json: steps and epochs done, times, and the scores of the best and the last epoch.

    Raises:
      Diverged: if the loss is not finite; the message names the step and the last good checkpoint.
    """
    checkpoints = Checkpoints(run.checkpoints)
    try:
        return _fit(trainer, run, observers, checkpoints)
    finally:
        checkpoints.close()
        for observer in observers:
            observer.closed()


def _fit(trainer: Trainer, run: RunDirectory, observers: Sequence[Observer], checkpoints: Checkpoints) -> Record:
    config, dataset = trainer.config, trainer.dataset
    step = checkpoints.latest_step() or 0
    history = run.rewind_metrics(step)
    state = trainer.place(checkpoints.restore(step, trainer.state_shapes)) if step else trainer.init()
    state, compile_seconds = trainer.compile(state)
    for observer in observers:
        observer.started(history, compile_seconds)
    num_epochs, pace = math.ceil(config.epochs), Pace(trainer.max_steps)
    while len(history) < num_epochs and not _stale(history, config.early_stopping_patience):
        epoch = len(history) + 1
        end = trainer.plan.steps(min(epoch, config.epochs))
        try:
            state, record = _train_epoch(trainer, state, step, end, pace, observers)
            val = trainer.evaluate(state.evaluated, dataset.val)
            _require_finite(val["loss"], end, "the validation loss")
        except Diverged as error:
            checkpoints.wait()
            raise Diverged(f"{error} (epoch {epoch}); {_last_good(checkpoints, run)}") from None
        step = end
        record = {"epoch": epoch, "step": step} | record | {"val_loss": val["loss"], "val_accuracy": val["accuracy"]}
        history.append(record)
        run.append_metrics(record)
        best = best_epoch(history)
        over = epoch == num_epochs or _stale(history, config.early_stopping_patience)
        if best is record or over or epoch % config.checkpoint_epochs == 0:
            checkpoints.save(step, state, best["step"])
        for observer in observers:
            observer.epoch(record, best)
    checkpoints.wait()
    return _results(trainer, checkpoints, state, history) | {"compile_seconds": round(compile_seconds, 2)}


def _train_epoch(
    trainer: Trainer, state: TrainState, step: int, end: int, pace: Pace, observers: Sequence[Observer]
) -> tuple[TrainState, Record]:
    """Trains from `step` to `end`; one dispatch is always under way while the last one's metrics are looked at."""
    batch_size = trainer.config.batch_size
    first, start = step, time.perf_counter()
    last_time = start
    losses, correct = [], 0
    under_way: list[tuple[int, int, dict]] = []
    while step < end or under_way:
        if step < end:
            num_steps = min(pace.steps, end - step)
            state, metrics = trainer.train(state, step, num_steps)
            under_way.append((step, num_steps, metrics))
            step += num_steps
        if len(under_way) > 1 or step == end:
            begun, num_steps, metrics = under_way.pop(0)
            metrics = jax.device_get(metrics)
            now = time.perf_counter()
            seconds, last_time = now - last_time, now
            losses.extend(metrics["loss"][:num_steps].tolist())
            for i, loss in enumerate(losses[-num_steps:]):
                _require_finite(loss, begun + i + 1, "the loss")
            dispatch_correct = int(metrics["correct"].sum())
            correct += dispatch_correct
            images = num_steps * batch_size
            for observer in observers:
                observer.progress(begun + num_steps, losses[-1], 100.0 * dispatch_correct / images, images / seconds)
            pace.learn(num_steps, seconds)
    seconds = time.perf_counter() - start
    images = (end - first) * batch_size
    return state, {
        "train_loss": float(np.mean(losses)),
        "train_accuracy": 100.0 * correct / images,
        "learning_rate": float(trainer.schedule(end - 1)),
        "images_per_second": round(images / seconds, 1),
        "seconds": round(seconds, 3),
    }


def _stale(history: list[Record], patience: int) -> bool:
    """Whether the last `patience` epochs brought nothing better on validation; never for a patience of 0."""
    return bool(patience and history) and history[-1]["epoch"] - best_epoch(history)["epoch"] >= patience


def _results(trainer: Trainer, checkpoints: Checkpoints, state: TrainState, history: list[Record]) -> Record:
    """Scores the test set, for the first and only time: once for the best epoch, once for the last."""
    best, last = best_epoch(history), history[-1]
    last_test = best_test = trainer.evaluate(state.evaluated, trainer.dataset.test)
    if best is not last:
        best_state = trainer.place(checkpoints.restore(best["step"], trainer.state_shapes))
        best_test = trainer.evaluate(best_state.evaluated, trainer.dataset.test)
    seconds = sum(record["seconds"] for record in history)
    return {
        "epochs": last["epoch"],
        "steps": last["step"],
        "best_epoch": best["epoch"],
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "test_accuracy": best_test["accuracy"],
        "test_loss": best_test["loss"],
        "last_val_accuracy": last["val_accuracy"],
        "last_val_loss": last["val_loss"],
        "last_test_accuracy": last_test["accuracy"],
        "last_test_loss": last_test["loss"],
        "test_examples": last_test["count"],
        "train_seconds": round(seconds, 2),
        "images_per_second": round(last["step"] * trainer.config.batch_size / seconds, 1),
    }


def _require_finite(value: float, step: int, what: str) -> None:
    if not math.isfinite(value):
        raise Diverged(f"{what} became {value} at step {step}")


def _last_good(checkpoints: Checkpoints, run: RunDirectory) -> str:
    step = checkpoints.latest_step()
    if step is None:
        return "no checkpoint had been written yet"
    return f"the last good checkpoint is of step {step}, in {run.checkpoints}"
