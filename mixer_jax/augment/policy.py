"""The augmentation policy of a config, which turns images and labels into the model's input and targets."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax.augment.automatic import POLICIES
from mixer_jax.augment.erasing import FILLS, RandomErasing
from mixer_jax.augment.geometry import TIE, central_box, crop_box, flip, pad_and_crop, resampling, resized_crop
from mixer_jax.augment.mixing import Mixing
from mixer_jax.augment.operations import Magnitudes, apply_all
from mixer_jax.data.size import as_size
from mixer_jax.errors import UserError, one_of

CHOICES = {
    "crop": ("none", "pad", "inception"),
    "flip": ("none", "random", "alternating"),
    "automatic": ("none", *POLICIES),
}
# Random number streams of a run. Stream 0 is for initialisation and 1 for dropout.
EXAMPLES, BATCHES, FLIPS = 2, 3, 4


def require_choices(config: ConfigDict) -> None:
    """Raise `UserError` if a name in an `augment` section does not exist."""
    for key, valid in CHOICES.items():
        if config[key] not in valid:
            raise one_of(f"config.augment.{key}", config[key], valid)
    if config.erasing.fill not in FILLS:
        raise one_of("config.augment.erasing.fill", config.erasing.fill, FILLS)


def _previous(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), tree)


class Augment:
    """The augmentation inside the compiled step.

    The order is: crop, flip, RandAugment or AutoAugment, normalisation, erasing, mixing.

    Except for the alternating flip, the augmentation of an example depends only on (seed, step, position in the global
    batch). The alternating flip depends on the seed, the index of the example and the epoch.

    Attributes:
      image_shape: (height, width, channels) of the images from the input pipeline.
      input_shape: (height, width, channels) of the model's input.
      num_classes: the number of classes, which is the width of the targets.
      box: (top, left, height, width) of the part of an image that is scaled to `input_shape`. In training, a random box
        replaces it if `crop` is "inception".
    """

    def __init__(self, config: ConfigDict, images: Any, num_classes: int, total_steps: int | None = None):
        """Check the policy and prepare it.

        Args:
          config: the `augment` section; see `mixer_jax.config`.
          images: a `Dataset` or a `Preprocessing`, whose `image_shape`, `mean` and `std` are used.
          num_classes: the number of classes.
          total_steps: the training steps of the run, for `mixing.until`; None mixes at every step.

        Raises:
          UserError: if the policy is inconsistent or does not fit the images.
        """
        require_choices(config)
        height, width, channels = images.image_shape
        size = as_size(config.input_size, "config.augment.input_size") or (height, width)
        if config.automatic != "none" and channels not in (1, 3):
            raise UserError(
                f"config.augment.automatic={config.automatic} needs 1 or 3 channels, but the images have {channels}"
            )
        self.image_shape, self.input_shape = images.image_shape, (*size, channels)
        self.num_classes = num_classes
        self._mean, self._std = (np.array(x, np.float32).reshape(1, 1, 1, -1) for x in (images.mean, images.std))
        self._crop, self._padding, self._inception = config.crop, config.crop_padding, config.inception
        self._flip = config.flip
        settings = config.rand_augment if config.automatic == "randaugment" else {}
        self._automatic = POLICIES[config.automatic](**settings) if config.automatic != "none" else None
        self.box = central_box(height, width, size, config.eval_crop)
        self._erasing = RandomErasing(**config.erasing) if config.erasing.probability else None
        mixes = config.mixing.probability and (config.mixing.mixup_alpha or config.mixing.cutmix_alpha)
        self._mixing, self._total_steps = Mixing(**config.mixing) if mixes else None, total_steps
        self._draws = (self._crop, self._flip) != ("none", "none") or self._automatic or self._erasing

    def train(
        self,
        seed: jax.Array | int,
        step: jax.Array | int,
        batch: dict[str, jax.Array],
        positions: jax.Array,
        predecessors: Callable[[Any], Any] = _previous,
    ) -> tuple[jax.Array, jax.Array]:
        """Prepare a device's shard of a batch for the model.

        Args:
          seed: the run's seed.
          step: the training step.
          batch: `images` (batch, height, width, channels) uint8, `labels` (batch,), `indices` (batch,), the index of
            each example in the training split, and `epochs` (batch,), the epoch of each example.
          positions: (batch,) int, the position of each example in the global batch.
          predecessors: a function that replaces each example's entries in arrays (batch, ...) by those of the example
            before it in the global batch; the default is for a single device.

        Returns:
          Images (batch, *input_shape) float32 and targets (batch, num_classes), probabilities.
        """

        def key(stream):
            return jax.random.fold_in(jax.random.key(seed), stream)

        if self._draws:
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(key(EXAMPLES), step), positions)
            move_keys, flip_keys, automatic_keys, erasing_keys = jax.vmap(jax.random.split, in_axes=(0, None))(
                keys, 4
            ).T
            first_flips = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key(FLIPS), batch["indices"])
            images = jax.vmap(self._move)(move_keys, flip_keys, first_flips, batch["images"], batch["epochs"])
            if self._automatic:
                magnitudes = Magnitudes(*self.input_shape[:2], self._automatic.num_bins)
                images = apply_all(images, jax.vmap(self._automatic.draw)(automatic_keys), magnitudes)
            images = self._normalize(images)
            if self._erasing:
                images = jax.vmap(self._erasing)(erasing_keys, images)
        else:  # JAX would trace the unused keys before XLA drops them
            images = self.evaluate(batch["images"])
        targets = jax.nn.one_hot(batch["labels"], self.num_classes, dtype=jnp.float32)
        if self._mixing:
            batch_key = jax.random.fold_in(key(BATCHES), step)
            progress = step / self._total_steps if self._total_steps else 0.0
            images, targets = self._mixing(batch_key, images, targets, *predecessors((images, targets)), progress)
        return images, targets

    def evaluate(self, images: jax.Array) -> jax.Array:
        """Convert images (batch, height, width, channels) uint8 to model input (batch, *input_shape) float32."""
        return self._normalize(jax.vmap(lambda image: self._fit(image, self.box))(images))

    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrices (new, old), for rows and columns, by which `evaluate` scales images.

        They are identities if images are not scaled.
        """
        top, left, height, width = self.box
        rows = resampling(self.image_shape[0], self.input_shape[0], top, height)
        columns = resampling(self.image_shape[1], self.input_shape[1], left, width)
        return np.asarray(rows), np.asarray(columns)

    def _move(
        self, crop_key: jax.Array, flip_key: jax.Array, first_flip: jax.Array, image: jax.Array, epoch: jax.Array
    ) -> jax.Array:
        """Crop, scale and flip an image (height, width, channels) uint8."""
        box = self.box
        if self._crop == "pad":
            image = pad_and_crop(crop_key, image, self._padding)
        elif self._crop == "inception":
            box = crop_box(crop_key, *image.shape[:2], self._inception.area, self._inception.aspect)
        image = self._fit(image, box)
        if self._flip == "random":
            image = flip(image, jax.random.bernoulli(flip_key))
        elif self._flip == "alternating":  # as in cifar10-airbench: one half in even epochs, the other in odd ones
            image = flip(image, jax.random.bernoulli(first_flip) ^ (epoch % 2 == 1))
        return image

    def _fit(self, image: jax.Array, box: tuple[Any, ...]) -> jax.Array:
        if box is self.box and box == (0, 0, *image.shape[:2]) and image.shape == self.input_shape:
            return image
        return jnp.round(resized_crop(image, box, self.input_shape[:2]) + TIE).astype(jnp.uint8)

    def _normalize(self, images: jax.Array) -> jax.Array:
        """Convert grey levels to float32, subtract the mean and divide by the standard deviation."""
        return (images.astype(jnp.float32) / 255.0 - self._mean) / self._std

    def denormalize(self, images: jax.Array) -> jax.Array:
        """Convert images (batch, height, width, channels) from the input of the model back to grey levels, uint8."""
        levels = 255.0 * (images * self._std + self._mean)
        return jnp.clip(jnp.round(levels), 0, 255).astype(jnp.uint8)
