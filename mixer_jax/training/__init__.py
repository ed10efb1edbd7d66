"""Training: `Trainer` puts a run together, `fit` runs it."""

from mixer_jax.training.epoch import Diverged, Observer, require_finite
from mixer_jax.training.interruption import Interrupted
from mixer_jax.training.loop import check_ending, fit, stale
from mixer_jax.training.trainer import Trainer

__all__ = ["Diverged", "Interrupted", "Observer", "Trainer", "check_ending", "fit", "require_finite", "stale"]
