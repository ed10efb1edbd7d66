"""When a run is over."""

import math
from collections.abc import Sequence

from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory, best_epoch
from mixer_jax.training.checkpoints import Checkpoints
from mixer_jax.training.epoch import Record
from mixer_jax.training.trainer import Trainer

OVER = "stopped; training is over, and its end is saved: the same command goes on from there"


def check_epochs(trainer: Trainer) -> None:
    """Raise `UserError` if not every epoch has a step of its own, of which it could tell how it went."""
    config, images, whole = trainer.config, len(trainer.dataset.train), math.ceil(trainer.config.epochs) - 1
    if not whole <= trainer.plans[0].steps(whole) < trainer.total_steps:
        raise UserError(
            f"config.epochs={config.epochs:g} of {images} images in batches of {config.batch_size}: not every "
            "epoch has a step of its own; give a smaller batch_size or other epochs"
        )


def check_ending(trainer: Trainer, directory: RunDirectory, runs: Sequence[RunDirectory]) -> None:
    """Raises `UserError` if what is there of the runs, see `fit`, cannot end after the epochs that are asked for."""
    config, total = trainer.config, trainer.total_steps
    histories = [history for history in (run.read_metrics() for run in runs) if history]
    step = max(
        [*Checkpoints(directory.checkpoints).steps(), *(history[-1]["step"] for history in histories)], default=0
    )
    if step > total:
        raise UserError(
            f"config.epochs={config.epochs:g}: the run in {directory.path} is at step {step} of {total}: give more"
        )
    for history in histories:
        epochs, step = len(history), history[-1]["step"]
        if epochs >= math.ceil(config.epochs) and step < total and not stale(history, config.early_stopping_patience):
            raise UserError(
                f"config.epochs={config.epochs:g}: the run in {directory.path} ended at step {step}, in the midst of "
                f"epoch {epochs}, which counts as done: give more than {epochs}"
            )


def stale(history: list[Record], patience: int) -> bool:
    """Whether the last `patience` epochs brought nothing better on validation; never for a patience of 0."""
    return bool(patience and history) and history[-1]["epoch"] - best_epoch(history)["epoch"] >= patience
