"""The steps of an epoch, in dispatches of about a second, and what they add up to."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from mixer_jax.training.processes import Agreement
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

    def started(self, histories: Sequence[list[Record]], step: int, compile_seconds: float) -> None:
        """Training goes on from `step`, after the epochs of `histories`."""

    def progress(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """So many steps are done; the rest is of the last dispatch, over all runs, accuracy in percent."""

    def epoch(self, latest: Sequence[Record], best: Sequence[Record]) -> None:
        """An epoch is over: the latest record, older of a run that has stopped early, and the best, maybe the same."""

    def validating(self) -> None:
        """The steps of an epoch are done, and the validation images are being scored."""

    def note(self, line: str) -> None:
        """What follows may take seconds, or is worth a line."""

    def warning(self, message: str) -> None:
        """Something is wrong that does not end the training."""

    def closed(self) -> None:
        """Nothing more will come."""


@dataclasses.dataclass
class Sums:
    """What the steps of an epoch have added up to so far, of each run; goes through a checkpoint unchanged.

    Attributes:
      losses: added up one by one, so that it does not matter how they came in dispatches.
      correct: predictions.
      steps: how many.
      seconds: that they took.
    """

    losses: list[float]
    correct: list[int]
    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def zero(cls, num_runs: int) -> "Sums":
        return cls([0.0] * num_runs, [0] * num_runs)

    def add(self, losses: np.ndarray, correct: np.ndarray, seconds: float) -> None:
        """Adds the steps of a dispatch: losses and correct predictions (runs, steps)."""
        before = np.array(self.losses)[:, None]
        self.losses = np.cumsum(np.concatenate([before, losses], axis=1), axis=1)[:, -1].tolist()
        self.correct = (np.array(self.correct) + correct.sum(axis=1)).tolist()
        self.steps += losses.shape[1]
        self.seconds += seconds

    def records(self, batch_size: int) -> list[Record]:
        """Of each run what the loss and the accuracy were, and how long the epoch took."""
        images = self.steps * batch_size
        return [
            {
                "train_loss": loss / self.steps,
                "train_accuracy": 100.0 * correct / images,
                "images_per_second": round(images / self.seconds, 1),
                "seconds": round(self.seconds, 3),
            }
            for loss, correct in zip(self.losses, self.correct, strict=True)
        ]


def train_steps(
    trainer: Trainer,
    state: TrainState,
    step: int,
    end: int,
    pace: Pace,
    sums: Sums,
    going: np.ndarray,
    observers: Sequence[Observer] = (),
    pause: Callable[[], bool] = lambda: False,
    agreement: Agreement | None = None,
) -> tuple[TrainState, int]:
    """Trains from `step` to `end`; where `trainer.ahead` says so, one dispatch is always under way while the last one's
    metrics are looked at.

    Args:
      trainer, state, step, end: what to train, and from where to where.
      pace: how long a dispatch is.
      sums: the steps are added to it.
      going: which of the runs still train; the others stay as they are.
      observers: are told of each dispatch.
      pause: asked before each dispatch; when it says so, what is under way is finished and nothing more begun.
      agreement: of several processes; what it has to say goes along with each dispatch.

    Returns:
      The state, and the step that it is after.

    Raises:
      Diverged: if a loss is not finite.
    """
    batch_size, last_time = trainer.config.batch_size, time.perf_counter()
    under_way: list[tuple[int, int, dict]] = []
    paused = False
    while (step < end and not paused) or under_way:
        paused = paused or (step < end and pause())
        if step < end and not paused:
            # In even parts: a dispatch of one step left over would cost as much as one of many.
            num_steps = math.ceil((end - step) / math.ceil((end - step) / pace.steps))
            said = () if agreement is None or agreement.said is None else (agreement.said,)
            state, metrics = trainer.train(state, step, num_steps, going, *said)
            under_way.append((step, num_steps, metrics))
            step += num_steps
        if under_way and (len(under_way) > trainer.ahead or step == end or paused):
            begun, num_steps, metrics = under_way.pop(0)
            metrics = jax.device_get(metrics)
            metrics = agreement.hear(metrics) if agreement else metrics
            metrics = {key: np.atleast_2d(value)[:, :num_steps] for key, value in metrics.items()}
            now = time.perf_counter()
            seconds, last_time = now - last_time, now
            losses, correct = metrics["loss"].astype(np.float64), metrics["correct"]
            require_finite(losses, going, trainer.seeds, begun + 1, "the loss")
            sums.add(losses, correct, seconds)
            images = num_steps * batch_size
            loss, accuracy = losses[going, -1].mean(), 100.0 * correct[going].sum(axis=1).mean() / images
            for observer in observers:
                observer.progress(begun + num_steps, loss, accuracy, going.sum() * images / seconds)
            pace.learn(num_steps, seconds)
    return state, step


def require_finite(losses: np.ndarray, going: np.ndarray, seeds: Sequence[int], step: int, what: str) -> None:
    """Raises `Diverged` unless the losses (runs, steps), those of `step` first, are numbers."""
    for i in np.flatnonzero(going):
        bad = np.flatnonzero(~np.isfinite(losses[i]))
        if len(bad):
            whose = f" of seed {seeds[i]}" if len(seeds) > 1 else ""
            raise Diverged(f"{what}{whose} became {losses[i][bad[0]]} at step {step + bad[0]}")
