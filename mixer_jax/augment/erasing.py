"""Random Erasing (arXiv 1708.04896), as in torchvision and timm."""

import dataclasses

import jax
import jax.numpy as jnp

from mixer_jax.augment.draws import first_where, log_uniform, random_place

FILLS = ("zero", "color", "noise")


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Random Erasing: overwrites a random box of a normalised image.

    Ten boxes are drawn, and the first that is smaller than the image on both sides is used. If there is none, nothing
    is erased. The defaults of torchvision are an area of (0.02, 0.33) and an aspect of (0.3, 3.3). Those of timm are
    (0.02, 1/3) and (0.3, 1/0.3).

    Attributes:
      probability: the probability that an image is erased.
      area: the bounds of the fraction of the image that the box covers, which is drawn uniformly.
      aspect: the bounds of the box's height divided by its width, which is drawn log-uniformly.
      fill: "zero", which is the mean pixel of the dataset if the normalisation subtracts the mean (torchvision; timm's
        "const"); "color", one normally distributed colour per box (timm's "rand"); or "noise", normally distributed
        values for every pixel (timm's "pixel").
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.33)
    aspect: tuple[float, float] = (0.3, 3.3)
    fill: str = "zero"

    def draw(self, key: jax.Array, height: int, width: int) -> tuple[jax.Array, ...]:
        """Draw a box (top, left, height, width) in pixels, int32. Its height and width are 0 if nothing is erased."""
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
        """Return an image (height, width, channels) float with a random box erased, or unchanged if none is drawn."""
        box_key, fill_key = jax.random.split(key)
        height, width, channels = image.shape
        box = self.draw(box_key, height, width)
        shape = {"zero": None, "color": (1, 1, channels), "noise": image.shape}[self.fill]
        fill = jnp.zeros((1, 1, channels)) if shape is None else jax.random.normal(fill_key, shape)
        return jnp.where(inside(box, height, width), fill.astype(image.dtype), image)


def inside(box: tuple[jax.Array, ...], height: int, width: int) -> jax.Array:
    """Return which pixels of an image are inside a box (top, left, height, width), as (height, width, 1) bool."""
    top, left, box_height, box_width = box
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)
