"""Augmentation on the device: pure functions of (key, image), compiled into the training step.

Functions of one image (height, width, channels) are mapped over a batch by `jax.vmap`. `Augment` combines what a config
enables.
"""

from mixer_jax.augment.operations import OPERATIONS, Magnitudes, apply
from mixer_jax.augment.policy import Augment

__all__ = ["OPERATIONS", "Augment", "Magnitudes", "apply"]
