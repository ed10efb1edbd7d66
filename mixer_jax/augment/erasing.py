"""Random Erasing (arXiv 1708.04896), as in torchvision and timm."""

import dataclasses

import jax
import jax.numpy as jnp

from mixer_jax.augment.draws import first_where, log_uniform, random_place

FILLS = ("zero", "color", "noise")


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Overwrites a random box of a normalised image.

    Of ten draws the first that is smaller than the image on both sides is taken; if none is, nothing is erased.
    torchvision's default area is (0.02, 0.33) and its aspect (0.3, 3.3), timm's (0.02, 1/3) and (0.3, 1/0.3).

    Attributes:
      probability: that an image has something erased.
      area: bounds of the box's share of the image, uniform between them.
      aspect: bounds of the box's height over its width, log-uniform between them.
      fill: "zero", which of images normalised by their mean is that (torchvision; timm's "const"); "color", one
        normally distributed colour a box (timm's "rand"); or "noise", such a value for every pixel (timm's "pixel").
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.33)
    aspect: tuple[float, float] = (0.3, 3.3)
    fill: str = "zero"

    def draw(self, key: jax.Array, height: int, width: int) -> tuple[jax.Array, ...]:
        """Draws a box (top, left, height, width) in pixels, int32; of no size where nothing is erased."""
        happens_key, area_key, aspect_key, place_key = jax.random.split(key, 4)
        area = height * width * jax.random.uniform(area_key, (10,), minval=self.area[0], maxval=self.area[1])
        aspect = log_uniform(aspect_key, (10,), self.aspect)
        heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
        widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
        fits = (heights < height) & (widths < width)
        happens = jax.random.bernoulli(happens_key, self.probability) & fits.any()
        box_height, box_width = (jnp.where(happens, first_where(fits, sides), 0) for sides in (heights, widths))
        top, left = random_place(place_key, height - box_height + 1, width - box_width + 1)
        return top, left, box_height, box_width

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Erases from an image (height, width, channels) float."""
        box_key, fill_key = jax.random.split(key)
        height, width, channels = image.shape
        box = self.draw(box_key, height, width)
        shape = {"zero": None, "color": (1, 1, channels), "noise": image.shape}[self.fill]
        fill = jnp.zeros((1, 1, channels)) if shape is None else jax.random.normal(fill_key, shape)
        return jnp.where(inside(box, height, width), fill.astype(image.dtype), image)


def inside(box: tuple[jax.Array, ...], height: int, width: int) -> jax.Array:
    """True in the box (top, left, height, width), (height, width, 1)."""
    top, left, box_height, box_width = box
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)
