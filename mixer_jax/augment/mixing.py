"""Mixup and CutMix, as in torchvision: each example is mixed with its predecessor in the global batch.

The weight and the box are drawn once per batch.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betaincinv

from mixer_jax.augment.draws import integers
from mixer_jax.augment.erasing import inside

QUANTILES = 2**14


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899).

    If both are enabled, each batch gets one of the two, with equal probability.

    Attributes:
      mixup_alpha: Mixup's weight is drawn from Beta(alpha, alpha); 0 disables Mixup.
      cutmix_alpha: the fraction of the area that CutMix keeps is drawn from Beta(alpha, alpha); 0 disables CutMix.
      probability: the probability that a batch is mixed.
      until: the fraction of the training after which batches are no longer mixed.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0
    until: float = 1.0

    def draw(
        self, key: jax.Array, height: int, width: int, progress: jax.Array | float = 0.0
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Draw the weight and the box of a batch.

        Args:
          key: the random key.
          height, width: of the images, in pixels.
          progress: the fraction of the training that is done.

        Returns:
          The weight of an example, a float32 scalar that is the same for the whole batch; the example's predecessor
          gets the rest. Then a box (top, left, height, width) in pixels, int32, inside which the predecessor has all
          the weight. For Mixup the box is empty; for CutMix the weight is 1.
        """
        happens_key, which_key, mixup_key, cutmix_key = jax.random.split(key, 4)
        happens = jax.random.bernoulli(happens_key, self.probability) & (progress < self.until)
        probability = 0.5 if self.mixup_alpha and self.cutmix_alpha else float(bool(self.cutmix_alpha))
        cut = jax.random.bernoulli(which_key, probability)
        weight, box = jnp.ones(()), (jnp.zeros((), jnp.int32),) * 4
        if self.mixup_alpha:
            weight = jnp.where(happens & ~cut, _beta(mixup_key, self.mixup_alpha), 1.0)
        if self.cutmix_alpha:
            drawn = _cutmix_box(cutmix_key, self.cutmix_alpha, height, width)
            box = tuple(jnp.where(happens & cut, side, 0) for side in drawn)
        return weight, box

    def __call__(
        self,
        key: jax.Array,
        images: jax.Array,
        targets: jax.Array,
        other_images: jax.Array,
        other_targets: jax.Array,
        progress: jax.Array | float = 0.0,
    ) -> tuple[Any, Any]:
        """Mix a batch with another one.

        Args:
          key: the random key, the same on every device.
          images: (batch, height, width, channels) float.
          targets: (batch, num_classes), probabilities.
          other_images, other_targets: the examples to mix with, of the same shapes.
          progress: the fraction of the training that is done.

        Returns:
          The mixed images and targets. The targets of an example are still probabilities.
        """
        height, width = images.shape[1:3]
        weight, box = self.draw(key, height, width, progress)
        mixed = weight * images + (1 - weight) * other_images
        mixed = jnp.where(inside(box, height, width)[None], other_images, mixed)
        kept = weight * (1 - box[2] * box[3] / (height * width))
        return mixed, kept * targets + (1 - kept) * other_targets


def _beta(key: jax.Array, alpha: float) -> jax.Array:
    """Draw approximately from Beta(alpha, alpha): one of a fixed number of its quantiles, all equally likely.

    JAX's own sampler loops until it accepts a draw, which is slow to compile and, on a TPU, slow to run.
    """
    quantiles = betaincinv(alpha, alpha, (np.arange(QUANTILES) + 0.5) / QUANTILES).astype(np.float32)
    return jax.lax.dynamic_index_in_dim(quantiles, integers(key, (), QUANTILES), keepdims=False)


def _cutmix_box(key: jax.Array, alpha: float, height: int, width: int) -> tuple[jax.Array, ...]:
    """Draw a box with the image's aspect ratio around a uniform centre, clipped at the edges.

    This is torchvision's v2 `CutMix.make_params`.
    """
    keep_key, place_key = jax.random.split(key)
    half = 0.5 * jnp.sqrt(1 - _beta(keep_key, alpha))
    y, x = integers(place_key, (2,), jnp.array([height, width]))
    half_height, half_width = (half * height).astype(jnp.int32), (half * width).astype(jnp.int32)
    top, left = jnp.maximum(y - half_height, 0), jnp.maximum(x - half_width, 0)
    bottom, right = jnp.minimum(y + half_height, height), jnp.minimum(x + half_width, width)
    return top, left, bottom - top, right - left
