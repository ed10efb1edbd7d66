"""RandAugment and AutoAugment, as in torchvision: the choice of the operations for each image.

For each image, a policy draws n operations for `operations.apply_all`: their indices, the bins of their magnitudes, and
whether the magnitudes are negative, each (n,). The attribute `operations` of each class holds the names of the
operations that it can draw.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mixer_jax.augment.draws import integers
from mixer_jax.augment.operations import INDEX, OPERATIONS, RANDAUGMENT

Choice = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment (arXiv 1909.13719), as in `torchvision.transforms.RandAugment`: 14 operations, all equally likely.

    Attributes:
      num_ops: the number of operations per image, drawn with replacement and applied one after the other.
      magnitude: the bin of the magnitude, 0 to 30, the same for all operations. Signed operations get a random sign.
    """

    num_ops: int = 2
    magnitude: int = 9
    num_bins = 31
    operations = RANDAUGMENT

    def draw(self, key: jax.Array) -> Choice:
        """Draw the operations for one image.

        Returns:
          Indices into `OPERATIONS`, bins of the magnitudes, and whether the magnitudes are negative, each (num_ops,).
        """
        operation_key, sign_key = jax.random.split(key)
        operations = integers(operation_key, (self.num_ops,), len(RANDAUGMENT))
        negative = jax.random.bernoulli(sign_key, 0.5, (self.num_ops,))
        return operations, jnp.full(self.num_ops, self.magnitude), negative


# arXiv 1805.09501, table 7, as in torchvision: 25 pairs of (operation, probability, bin out of 10).
CIFAR10_POLICY = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)


class AutoAugment:
    """AutoAugment (arXiv 1805.09501), as in `torchvision.transforms.AutoAugment`.

    The policy is the one learned on CIFAR-10.
    """

    num_bins = 10
    operations = OPERATIONS

    def draw(self, key: jax.Array) -> Choice:
        """Draw one sub-policy for an image: a pair of operations, each applied with a probability of its own.

        An operation that is not applied becomes Identity.

        Returns:
          Indices into `OPERATIONS`, bins of the magnitudes, and whether the magnitudes are negative, each (2,).
        """
        pair_key, happens_key, sign_key = jax.random.split(key, 3)
        pair = integers(pair_key, (), len(CIFAR10_POLICY))
        rows = [
            [[INDEX[name], round(100 * probability), bin_] for name, probability, bin_ in pair]
            for pair in CIFAR10_POLICY
        ]
        operations, percent, bins = jnp.array(rows, jnp.int32)[pair].T
        happens = 100 * jax.random.uniform(happens_key, (2,)) <= percent
        negative = jax.random.bernoulli(sign_key, 0.5, (2,))
        return jnp.where(happens, operations, INDEX["Identity"]), bins, negative


# What config.augment.automatic names, other than "none".
POLICIES = {"randaugment": RandAugment, "autoaugment_cifar10": AutoAugment}
