"""The conditions for the end of a run."""

import math
from collections.abc import Sequence

from mixer_jax.errors import UserError
from mixer_jax.records import Epoch, best_epoch
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.trainer import Trainer

OVER = "stopped; training is over, and the final checkpoint is saved: run the same command again to resume"


def check_epochs(trainer: Trainer) -> None:
    """Raise `UserError` if an epoch would have no training step of its own, and so no metrics."""
    config, images, whole = trainer.config, len(trainer.dataset.train), math.ceil(trainer.config.epochs) - 1
    if not whole <= trainer.sampler.steps_in(whole) < trainer.total_steps:
        raise UserError(
            f"config.epochs={config.epochs:g} of {images} images in batches of {config.batch_size}: some epoch would "
            "have no training step; use a smaller batch_size or other epochs"
        )


def check_ending(trainer: Trainer, run: RunDirectory) -> None:
    """Raise `UserError` if the run in a directory cannot end as the config asks.

    There are two cases in which it cannot. The run has passed the last step that the config asks for. Or the run has
    ended in the middle of an epoch, because `epochs` was fractional. That epoch counts as done, so the run cannot
    resume in the middle of it, although the config now asks for that.
    """
    config, total, history = trainer.config, trainer.total_steps, run.read_metrics()
    step = run.steps_done or 0
    if step > total:
        raise UserError(
            f"config.epochs={config.epochs:g}: the run in {run.path} is already at step {step}, past the requested "
            f"{total}: set a larger config.epochs"
        )
    if not history:
        return
    epochs, step = len(history), history[-1].step
    if epochs >= math.ceil(config.epochs) and step < total and not stale(history, config.early_stopping_patience):
        raise UserError(
            f"config.epochs={config.epochs:g}: the run in {run.path} ended at step {step}, in the middle of epoch "
            f"{epochs}, which counts as done: set config.epochs to more than {epochs}"
        )


def stale(history: Sequence[Epoch], patience: int) -> bool:
    """Return whether the last `patience` epochs brought no better validation scores; False for a patience of 0."""
    return bool(patience and history) and history[-1].epoch - best_epoch(history).epoch >= patience
