"""Training: `train` takes a config to its results; `Trainer` and `fit` are its parts."""

from mixer_jax.training.ending import check_epochs, stale
from mixer_jax.training.epoch import Diverged, require_finite
from mixer_jax.training.interruption import Interrupted
from mixer_jax.training.loop import fit
from mixer_jax.training.run import train
from mixer_jax.training.trainer import Trainer

__all__ = ["Diverged", "Interrupted", "Trainer", "check_epochs", "fit", "require_finite", "stale", "train"]
