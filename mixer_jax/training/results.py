"""What is left to do when training is over: the scores, and a checkpoint for each of several runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory, best_epoch
from mixer_jax.training.checkpoints import Checkpoint, Checkpoints
from mixer_jax.training.epoch import Record, Sums
from mixer_jax.training.parallel import to_host
from mixer_jax.training.step import TrainState
from mixer_jax.training.trainer import Trainer


def score(trainer: Trainer, state: TrainState, best: Any, histories: Sequence[list[Record]]) -> list[Record]:
    """Scores the test set, for the first and only time: once for the best epoch, once for the last.

    Args:
      trainer: of one seed or several.
      state: at the end.
      best: the parameters of each run's best epoch.
      histories: the lines of each run's metrics.jsonl.

    Returns:
      The measured part of each run's results.json.
    """
    every_best = trainer.evaluate(trainer.place(best), trainer.dataset.test)
    every_last = trainer.evaluate(state.evaluated, trainer.dataset.test)
    results = []
    for history, best_test, last_test in zip(histories, every_best, every_last, strict=True):
        best, last = best_epoch(history), history[-1]
        seconds = sum(record["seconds"] for record in history)
        results.append(
            {
                "epochs": min(last["epoch"], trainer.config.epochs),
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
            checkpoints.wait()
        except OSError as error:
            raise UserError(f"{error}; mend that, and the same command goes on from the last checkpoint") from error
        finally:
            checkpoints.close()
