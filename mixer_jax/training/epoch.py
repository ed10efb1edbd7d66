"""The training steps of an epoch, in dispatches of about a second, and the sums of their metrics."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mixer_jax.records import Epoch
from mixer_jax.reporting.observer import Dispatch, Observer
from mixer_jax.training.processes import Agreement
from mixer_jax.training.step import TrainState
from mixer_jax.training.trainer import Scores, Trainer

SECONDS_PER_DISPATCH = 1.0  # long compared with the overhead of a dispatch, short enough to show progress
# The minimum number of steps per dispatch: each dispatch allocates memory, whose first use costs a CPU much of a
# step's time.
FEWEST_STEPS = 4


class Diverged(Exception):
    """The loss is not finite."""


class DispatchLength:
    """The number of steps per dispatch, adapted so that a dispatch takes about SECONDS_PER_DISPATCH.

    Attributes:
      max_steps: the upper limit.
      steps: the number for the next dispatch.
    """

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.steps = min(FEWEST_STEPS, max_steps)

    def learn(self, num_steps: int, seconds: float) -> None:
        """Adapt to the measured time of a dispatch of `num_steps`."""
        fitting = int(SECONDS_PER_DISPATCH * num_steps / seconds)
        self.steps = min(max(FEWEST_STEPS, min(fitting, 4 * self.steps)), self.max_steps)


@dataclasses.dataclass
class Sums:
    """The metrics of an unfinished epoch, summed over its steps; stored in checkpoints.

    Attributes:
      loss: the sum of the steps' losses, added one by one, so that it does not depend on the length of dispatches.
      correct: correct predictions.
      steps: number of steps.
      seconds: time spent on the steps.
    """

    loss: float = 0.0
    correct: int = 0
    steps: int = 0
    seconds: float = 0.0

    def add(self, losses: np.ndarray, correct: np.ndarray, seconds: float) -> None:
        """Add the steps of a dispatch: float64 losses (steps,) and correct predictions (steps,)."""
        self.loss = float(np.cumsum(np.concatenate([[self.loss], losses]))[-1])
        self.correct += int(correct.sum())
        self.steps += len(losses)
        self.seconds += seconds

    def epoch(self, epoch: int, step: int, batch_size: int, learning_rate: float, validation: Scores) -> Epoch:
        """Return the record of the finished epoch; `validation` is what `Trainer.evaluate` returned."""
        images = self.steps * batch_size
        return Epoch(
            epoch=epoch,
            step=step,
            train_loss=self.loss / self.steps,
            train_accuracy=100.0 * self.correct / images,
            images_per_second=round(images / self.seconds, 1) or images / self.seconds,  # never 0
            seconds=round(self.seconds, 3),
            learning_rate=learning_rate,
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
        )


def train_steps(
    trainer: Trainer,
    state: TrainState,
    step: int,
    end: int,
    length: DispatchLength,
    sums: Sums,
    observers: Sequence[Observer] = (),
    pause: Callable[[], bool] = lambda: False,
    agreement: Agreement | None = None,
) -> tuple[TrainState, int]:
    """Train from step `step` to step `end`.

    If `trainer.ahead` allows it, the next dispatch is started before the metrics of the previous one are fetched.

    Args:
      trainer: the run's trainer.
      state: the state after `step` steps, on the devices.
      step, end: the steps to start from and to stop at.
      length: the length of dispatches; it is adapted to their measured times.
      sums: receives the metrics of the steps.
      observers: receive `progress` after each dispatch.
      pause: called before each dispatch; True ends the training early, after the dispatches already started.
      agreement: how several processes decide together; its message is sent with each dispatch. See
        `processes.Agreement`.

    Returns:
      The state, and the number of steps done.

    Raises:
      Diverged: if a loss is not finite.
    """
    batch_size, last_time = trainer.config.batch_size, time.perf_counter()
    started: list[tuple[int, int, dict]] = []
    paused = False
    while (step < end and not paused) or started:
        paused = paused or (step < end and pause())
        if step < end and not paused:
            # Split evenly: a short dispatch would pay the same overhead.
            num_steps = math.ceil((end - step) / math.ceil((end - step) / length.steps))
            message = () if agreement is None or agreement.message is None else (agreement.message,)
            state, metrics = trainer.train(state, step, num_steps, *message)
            started.append((step, num_steps, metrics))
            step += num_steps
        if started and (len(started) > trainer.ahead or step == end or paused):
            first, num_steps, metrics = started.pop(0)
            fetched = jax.device_get(metrics)
            fetched = agreement.receive(fetched) if agreement else fetched
            losses, correct = fetched["loss"][:num_steps].astype(np.float64), fetched["correct"][:num_steps]
            now = time.perf_counter()
            seconds, last_time = now - last_time, now
            require_finite(losses, first + 1, "the loss")
            sums.add(losses, correct, seconds)
            images = num_steps * batch_size
            norms = fetched["gradient_norm"][:num_steps].astype(np.float64)
            dispatch = Dispatch(first, losses, 100.0 * correct / batch_size, norms, images / seconds)
            for observer in observers:
                observer.progress(dispatch)
            length.learn(num_steps, seconds)
    return state, step


def require_finite(losses: np.ndarray, step: int, what: str) -> None:
    """Raise `Diverged` unless all losses are finite.

    Args:
      losses: (n,) float, of consecutive steps.
      step: the step of the first loss.
      what: names the loss in the error.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise Diverged(f"{what} became {losses[bad[0]]} at step {step + bad[0]}")
