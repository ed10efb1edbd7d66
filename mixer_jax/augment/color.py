"""Changes pixels in place: lookup tables of 256 grey levels and blends, in Pillow's arithmetic.

Images are (height, width, channels) uint8 with 1 or 3 channels; tables are (256, channels) uint8.
"""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = np.arange(256, dtype=np.int32)


def look_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """Replaces each grey level by what the table of its channel has for it."""
    channels = image.shape[-1]
    entries = image.astype(jnp.int32) * channels + jnp.arange(channels)[None, None, :]
    return jnp.take(table.ravel(), entries, mode="clip")


def blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Goes from `degenerate` (factor 0) through `image` (1) and beyond, as `PIL.Image.blend`: clipped, rounded down."""
    degenerate, image = degenerate.astype(jnp.float32), image.astype(jnp.float32)
    return jnp.clip(degenerate + factor * (image - degenerate), 0.0, 255.0).astype(jnp.uint8)


def greyscale(image: jax.Array) -> jax.Array:
    """ITU-R 601-2 luma, (height, width, 1) uint8, as `PIL.Image.convert("L")`."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(jnp.uint8)[..., None]


def mean_grey(image: jax.Array) -> jax.Array:
    """The mean luma, rounded to a grey level: what `PIL.ImageEnhance.Contrast` blends with."""
    grey = greyscale(image).astype(jnp.int32)
    return (2 * grey.sum() + grey.size) // (2 * grey.size)


def smooth(image: jax.Array) -> jax.Array:
    """3x3 mean in which the centre counts five times, the border as it is: `PIL.ImageFilter.SMOOTH`."""
    pixels = image.astype(jnp.int32)
    columns = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = columns[:-2] + columns[1:-1] + columns[2:] + 4 * pixels[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set(((2 * total + 13) // 26).astype(jnp.uint8))


def histogram(image: jax.Array) -> jax.Array:
    """How often each grey level occurs in each channel, (256, channels) int32."""
    channels = image.shape[-1]
    entries = image.astype(jnp.int32) * channels + jnp.arange(channels)[None, None, :]
    counts = jnp.zeros(256 * channels, jnp.int32).at[entries.ravel()].add(1, mode="promise_in_bounds")
    return counts.reshape(256, channels)


def autocontrast_table(image: jax.Array) -> jax.Array:
    """Stretches each channel from its darkest and brightest level to 0 and 255 (`PIL.ImageOps.autocontrast`)."""
    low, high = (f(image, axis=(0, 1)).astype(jnp.int32)[None, :] for f in (jnp.min, jnp.max))
    levels = LEVELS[:, None]
    span = jnp.maximum(high - low, 1)
    above = jnp.maximum(levels - low, 0) * 255
    exact = jnp.minimum(above // span, 255)
    # Pillow computes in double precision and rounds down: an exact level can come out one too low.
    rounding, halfway = (jnp.asarray(a) for a in _double_rounding())
    error = rounding[span[0]].T
    short = jnp.take_along_axis(error, low, axis=0) - error > halfway[exact]
    stretched = exact - (short & (above % span == 0))
    return jnp.where(high > low, stretched, levels).astype(jnp.uint8)


@functools.cache
def _double_rounding() -> tuple[np.ndarray, np.ndarray]:
    """For spans d and levels i, i times the double 255/d, minus what it should be; and what a level rounds up over.

    With the latter nudged away from its ties, all levels of all pairs of extremes come out as in double precision.
    """
    rounding = np.zeros((256, 256), np.float32)
    for d in range(1, 256):
        rounding[d] = [float(Fraction(i * (255.0 / d)) - Fraction(255 * i, d)) for i in range(256)]
    halfway = 2.0 ** (np.ceil(np.log2(np.maximum(LEVELS, 1))) - 54) * 1.0001
    return rounding, halfway.astype(np.float32)


def equalize_table(image: jax.Array) -> jax.Array:
    """Makes the histogram of each channel as even as it gets (`PIL.ImageOps.equalize`)."""
    counts = histogram(image)
    brightest = jnp.max(jnp.where(counts > 0, LEVELS[:, None], 0), axis=0, keepdims=True)
    step = (counts.sum(0, keepdims=True) - jnp.take_along_axis(counts, brightest, axis=0)) // 255
    below = jnp.cumsum(counts, axis=0) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, LEVELS[:, None]).astype(jnp.uint8)
