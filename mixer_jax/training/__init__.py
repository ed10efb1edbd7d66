"""Training: `Trainer` puts a run together, `fit` runs it."""

from mixer_jax.training.epoch import Diverged, Observer
from mixer_jax.training.interruption import Interrupted
from mixer_jax.training.loop import check_ending, fit
from mixer_jax.training.trainer import Trainer

__all__ = ["Diverged", "Interrupted", "Observer", "Trainer", "check_ending", "fit"]
