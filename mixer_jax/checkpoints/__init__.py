"""Checkpoints of a run: written in the background and verified by hashes; the two newest are kept."""

from mixer_jax.checkpoints.checkpoints import Checkpoint, Checkpoints, not_finite
from mixer_jax.checkpoints.files import Damaged

__all__ = ["Checkpoint", "Checkpoints", "Damaged", "not_finite"]
