"""Training: `Trainer` puts a run together, `fit` runs it."""

from mixer_jax.training.loop import Diverged, Observer, fit
from mixer_jax.training.trainer import Trainer

__all__ = ["Diverged", "Observer", "Trainer", "fit"]
