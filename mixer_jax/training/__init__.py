"""Training: `Trainer` puts a run together, `fit` runs it."""

from mixer_jax.training.ending import OVER, check_ending, check_epochs, stale
from mixer_jax.training.epoch import Diverged, Observer, require_finite
from mixer_jax.training.interruption import Interrupted, stopping_at_once
from mixer_jax.training.loop import fit
from mixer_jax.training.results import Outcome
from mixer_jax.training.trainer import Trainer

__all__ = [
    "OVER",
    "Diverged",
    "Interrupted",
    "Observer",
    "Outcome",
    "Trainer",
    "check_ending",
    "check_epochs",
    "fit",
    "require_finite",
    "stale",
    "stopping_at_once",
]
