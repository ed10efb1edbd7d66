"""The training loop: epochs, evaluation, checkpoints, early stopping, and the results at the end.

It trains one run, or several that differ in their seed only and advance together, each as it would alone.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.run_directory import RunDirectory, best_epoch
from mixer_jax.training.checkpoints import Checkpoints
from mixer_jax.training.step import TrainState
from mixer_jax.training.trainer import Trainer

SECONDS_PER_DISPATCH = 1.0  # long beside what a dispatch costs, short enough to show progress
FEWEST_STEPS = 4  # a dispatch: its memory is fresh, and to touch it first costs a CPU a good part of a step

Record = dict[str, Any]


class Diverged(Exception):
    """The loss is no longer a number."""


class Pace:
    """How many steps make a dispatch of about SECONDS_PER_DISPATCH, learned from the last ones."""

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.steps = min(FEWEST_STEPS, max_steps)

    def learn(self, num_steps: int, seconds: float) -> None:
        """Is told that a dispatch of `num_steps` took so long."""
        fitting = int(SECONDS_PER_DISPATCH * num_steps / seconds)
        self.steps = min(max(FEWEST_STEPS, min(fitting, 4 * self.steps)), self.max_steps)


class Observer(Protocol):
    """Is told how training goes; of each run in lists, which for a single run have one entry."""

    def started(self, histories: Sequence[list[Record]], compile_seconds: float) -> None:
        """Training goes on after the epochs of `histories`."""

    def progress(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """So many steps are done; the rest is of the last dispatch, over all runs, accuracy in percent."""

    def epoch(self, latest: Sequence[Record], best: Sequence[Record]) -> None:
        """An epoch is over: the latest record, older of a run that has stopped early, and the best, maybe the same."""

    def closed(self) -> None:
        """Nothing more will come."""


def fit(
    trainer: Trainer, directory: RunDirectory, runs: Sequence[RunDirectory], observers: Sequence[Observer] = ()
) -> list[Record]:
    """Trains to the end, from the last checkpoint in the directory if there is one.

    Args:
      trainer: of one seed or several.
      directory: whose checkpoints are those of all seeds together.
      runs: of each seed, in order; for a single one the directory itself.
      observers: are told how it goes.

    Returns:
      The measured part of each run's results.json: steps and epochs done, times, and the scores of the best and the
      last epoch.

    Raises:
      Diverged: if a loss is not finite; the message names the step and the last good checkpoint.
    """
    checkpoints = Checkpoints(directory.checkpoints)
    try:
        return _fit(trainer, runs, observers, checkpoints)
    finally:
        checkpoints.close()
        for observer in observers:
            observer.closed()


def _fit(
    trainer: Trainer, runs: Sequence[RunDirectory], observers: Sequence[Observer], checkpoints: Checkpoints
) -> list[Record]:
    config = trainer.config
    step = checkpoints.latest_step() or 0
    histories = [run.rewind_metrics(step) for run in runs]
    state = trainer.place(checkpoints.restore(step, trainer.state_shapes)) if step else trainer.init()
    state, compile_seconds = trainer.compile(state)
    for observer in observers:
        observer.started(histories, compile_seconds)
    num_epochs, pace = math.ceil(config.epochs), Pace(trainer.max_steps)

    def over(history: list[Record]) -> bool:
        return len(history) == num_epochs or _stale(history, config.early_stopping_patience)

    while not all(map(over, histories)):
        going = np.array([not over(history) for history in histories])
        epoch = 1 + max(map(len, histories))
        end = trainer.plans[0].steps(min(epoch, config.epochs))
        try:
            state, records = train_epoch(trainer, state, step, end, pace, observers, going)
            scores = trainer.evaluate(state.evaluated, trainer.dataset.val)
            losses = np.array([[val["loss"]] for val in scores])
            _require_finite(losses, going, trainer.seeds, end, "the validation loss")
        except Diverged as error:
            checkpoints.wait()
            raise Diverged(f"{error} (epoch {epoch}); {_last_good(checkpoints)}") from None
        step = end
        for i in np.flatnonzero(going):
            val = {"val_loss": scores[i]["loss"], "val_accuracy": scores[i]["accuracy"]}
            histories[i].append({"epoch": epoch, "step": step} | records[i] | val)
            runs[i].append_metrics(histories[i][-1])
        best, latest = [best_epoch(history) for history in histories], [history[-1] for history in histories]
        advanced = [history for history, goes in zip(histories, going, strict=True) if goes]
        if epoch % config.checkpoint_epochs == 0 or any(over(h) or best_epoch(h) is h[-1] for h in advanced):
            checkpoints.save(step, state, {record["step"] for record in (*best, *latest)})
        for observer in observers:
            observer.epoch(latest, best)
    checkpoints.wait()
    results = _results(trainer, runs, checkpoints, state, step, histories)
    return [result | {"compile_seconds": round(compile_seconds, 2)} for result in results]


def train_epoch(
    trainer: Trainer,
    state: TrainState,
    step: int,
    end: int,
    pace: Pace,
    observers: Sequence[Observer] = (),
    going: np.ndarray | None = None,
) -> tuple[TrainState, list[Record]]:
    """Trains from `step` to `end`; one dispatch is always under way while the last one's metrics are looked at.

    Returns:
      The state after, and of each run what the loss and the accuracy were, and how long it took. A run that is not
      `going` any longer goes along, but nobody looks at it; by default all are.
    """
    batch_size = trainer.config.batch_size
    going = np.ones(len(trainer.seeds), bool) if going is None else going
    first, start = step, time.perf_counter()
    last_time = start
    losses, correct = [], np.zeros(len(going), np.int64)
    under_way: list[tuple[int, int, dict]] = []
    while step < end or under_way:
        if step < end:
            # In even parts: a dispatch of one step left over would cost as much as one of many.
            num_steps = math.ceil((end - step) / math.ceil((end - step) / pace.steps))
            state, metrics = trainer.train(state, step, num_steps)
            under_way.append((step, num_steps, metrics))
            step += num_steps
        if len(under_way) > 1 or step == end:
            begun, num_steps, metrics = under_way.pop(0)
            metrics = {key: np.atleast_2d(value)[:, :num_steps] for key, value in jax.device_get(metrics).items()}
            now = time.perf_counter()
            seconds, last_time = now - last_time, now
            losses.append(metrics["loss"].astype(np.float64))
            _require_finite(losses[-1], going, trainer.seeds, begun + 1, "the loss")
            dispatch_correct = metrics["correct"].sum(axis=1)
            correct += dispatch_correct
            images = num_steps * batch_size
            loss, accuracy = losses[-1][going, -1].mean(), 100.0 * dispatch_correct[going].mean() / images
            for observer in observers:
                observer.progress(begun + num_steps, loss, accuracy, len(going) * images / seconds)
            pace.learn(num_steps, seconds)
    seconds = time.perf_counter() - start
    images = (end - first) * batch_size
    mean_losses = np.concatenate(losses, axis=1).mean(axis=1)
    return state, [
        {
            "train_loss": float(loss),
            "train_accuracy": 100.0 * int(count) / images,
            "learning_rate": float(trainer.schedule(end - 1)),
            "images_per_second": round(images / seconds, 1),
            "seconds": round(seconds, 3),
        }
        for loss, count in zip(mean_losses, correct, strict=True)
    ]


def _stale(history: list[Record], patience: int) -> bool:
    """Whether the last `patience` epochs brought nothing better on validation; never for a patience of 0."""
    return bool(patience and history) and history[-1]["epoch"] - best_epoch(history)["epoch"] >= patience


def _results(
    trainer: Trainer,
    runs: Sequence[RunDirectory],
    checkpoints: Checkpoints,
    state: TrainState,
    step: int,
    histories: list[list[Record]],
) -> list[Record]:
    """Scores the test set, for the first and only time: once for the best epoch, once for the last."""
    scores = {}
    for name, records in (("best", list(map(best_epoch, histories))), ("last", [h[-1] for h in histories])):
        states = _states_at(trainer, checkpoints, state, step, [record["step"] for record in records])
        scores[name] = trainer.evaluate(states.evaluated, trainer.dataset.test)
        if len(runs) > 1:
            _hand_out(states, runs)
    results = []
    for history, best_test, last_test in zip(histories, scores["best"], scores["last"], strict=True):
        best, last = best_epoch(history), history[-1]
        seconds = sum(record["seconds"] for record in history)
        results.append(
            {
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
        )
    return results


def _states_at(
    trainer: Trainer, checkpoints: Checkpoints, state: TrainState, step: int, steps: Sequence[int]
) -> TrainState:
    """The states of all runs, each at its own of `steps`; `state` is that of all at `step`."""
    at = {s: state if s == step else trainer.place(checkpoints.restore(s, trainer.state_shapes)) for s in set(steps)}
    if len(at) == 1:
        return at[steps[0]]
    return trainer.place(
        jax.tree.map(lambda *xs: jnp.stack([xs[list(at).index(s)][i] for i, s in enumerate(steps)]), *at.values())
    )


def _hand_out(states: TrainState, runs: Sequence[RunDirectory]) -> None:
    """Gives each of several runs the checkpoint that it would have alone."""
    states = jax.device_get(states)
    for i, run in enumerate(runs):
        checkpoints = Checkpoints(run.checkpoints)
        mine = jax.tree.map(lambda x, i=i: x[i], states)
        checkpoints.save(int(mine.step), mine, wanted=checkpoints.steps())
        checkpoints.close()


def _require_finite(losses: np.ndarray, going: np.ndarray, seeds: Sequence[int], step: int, what: str) -> None:
    """Raises `Diverged` unless the losses (runs, steps), those of `step` first, are numbers."""
    for i in np.flatnonzero(going):
        bad = np.flatnonzero(~np.isfinite(losses[i]))
        if len(bad):
            whose = f" of seed {seeds[i]}" if len(seeds) > 1 else ""
            raise Diverged(f"{what}{whose} became {losses[i][bad[0]]} at step {step + bad[0]}")


def _last_good(checkpoints: Checkpoints) -> str:
    step = checkpoints.latest_step()
    if step is None:
        return "no checkpoint had been written yet"
    return f"the last good checkpoint is of step {step}, in {checkpoints.directory}"
