"""Checkpoints of a run: written in the background, verified by hashes, kept until the next one is safe."""

from mixer_jax.checkpoints.checkpoints import Checkpoint, Checkpoints
from mixer_jax.checkpoints.files import Damaged, first_line

__all__ = ["Checkpoint", "Checkpoints", "Damaged", "first_line"]
