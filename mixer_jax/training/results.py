"""What is left to do when training is over: the scores, and a checkpoint for each of several runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mixer_jax.errors import UserError, warn
from mixer_jax.metrics import accuracy_and_loss
from mixer_jax.run_directory import RunDirectory, best_epoch
from mixer_jax.training.checkpoints import Checkpoint, Checkpoints
from mixer_jax.training.epoch import Record, Sums
from mixer_jax.training.parallel import to_host
from mixer_jax.training.step import TrainState
from mixer_jax.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
      measured: the measured part of results.json.
      logits: (n, classes) float32, of the best epoch's parameters on the test images in their order.
      labels: (n,) int32, of these images.
    """

    measured: Record
    logits: np.ndarray
    labels: np.ndarray


def score(trainer: Trainer, state: TrainState, best: Any, histories: Sequence[list[Record]]) -> list[Outcome]:
    """Score the test set, for the first and only time: for the best epoch, and for the last where that is another.

    In float32, whatever the training computed with: the same logits are what every report of the run is of.

    Args:
      trainer: of one seed or several.
      state: at the end.
      best: the parameters of each run's best epoch.
      histories: the lines of each run's metrics.jsonl.
    """
    test = trainer.dataset.test
    of_best, labels = trainer.predict(trainer.place(best), test)
    ends_best = all(best_epoch(history) is history[-1] for history in histories)
    of_last = of_best if ends_best else trainer.predict(state.evaluated, test)[0]
    outcomes = []
    for history, best_logits, last_logits in zip(histories, of_best, of_last, strict=True):
        best, last = best_epoch(history), history[-1]
        best_accuracy, best_loss = accuracy_and_loss(best_logits, labels)
        last_accuracy, last_loss = accuracy_and_loss(last_logits, labels)
        seconds = sum(record["seconds"] for record in history)
        measured = {
            "epochs": min(last["epoch"], trainer.config.epochs),
            "steps": last["step"],
            "best_epoch": best["epoch"],
            "val_accuracy": best["val_accuracy"],
            "val_loss": best["val_loss"],
            "test_accuracy": best_accuracy,
            "test_loss": best_loss,
            "last_val_accuracy": last["val_accuracy"],
            "last_val_loss": last["val_loss"],
            "last_test_accuracy": last_accuracy,
            "last_test_loss": last_loss,
            "test_examples": len(labels),
            "train_seconds": round(seconds, 2),
            "images_per_second": round(last["step"] * trainer.config.batch_size / seconds, 1),
        }
        outcomes.append(Outcome(measured, best_logits, labels))
    return outcomes


def hand_out(
    trainer: Trainer,
    state: TrainState,
    best: Any,
    histories: Sequence[list[Record]],
    runs: Sequence[RunDirectory],
) -> None:
    """Gives each of several runs the checkpoint that it would have alone.

    Raises:
      UserError: if it cannot be written.
    """
    state = to_host(state)
    for i, (run, history) in enumerate(zip(runs, histories, strict=True)):
        mine, its_best = jax.tree.map(lambda x, i=i: x[i], (state, best))
        step, sums = history[-1]["step"], dataclasses.asdict(Sums.zero(1))
        progress = {"step": step, "histories": [history], "sums": sums, "ran_on": trainer.runs_on}
        checkpoints = Checkpoints(run.checkpoints)
        try:
            checkpoints.save(Checkpoint(step, mine, its_best, progress))
            for remark in checkpoints.wait():
                warn(remark)
        except OSError as error:
            raise UserError(f"{error}; mend that, and the same command goes on from the last checkpoint") from error
        finally:
            checkpoints.close()
