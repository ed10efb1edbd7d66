"""Augmentation on the device: pure functions of (key, image), compiled into the training step.

Functions of one image (height, width, channels) are mapped over a batch by `jax.vmap`. `Augment` combines what a config
enables.
"""

from mixer_jax.augment.automatic import AutoAugment, RandAugment
from mixer_jax.augment.erasing import RandomErasing
from mixer_jax.augment.mixing import Mixing
from mixer_jax.augment.operations import OPERATIONS, Magnitudes, apply
from mixer_jax.augment.policy import Augment

__all__ = ["OPERATIONS", "Augment", "AutoAugment", "Magnitudes", "Mixing", "RandAugment", "RandomErasing", "apply"]
