"""Change pixel values by histograms, lookup tables and blends, with Pillow's arithmetic.

An image is given as planes: (channels, pixels) int32 grey levels, row by row, with 1 or 3 channels. Tables are
(channels, 256) int32. Integer divisions are computed in floating point and then corrected, which vectorises and is
exact.
"""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = np.arange(256, dtype=np.int32)[None, :]
BELOW = np.triu(np.ones((16, 16), np.float32), 1)  # row vector @ BELOW: the sum of the entries before each entry


def pack(planes: jax.Array) -> jax.Array:
    """Pack planes (channels, pixels) into (pixels,) int32, eight bits per channel.

    This way, all channels of a pixel are moved at once.
    """
    return functools.reduce(jnp.bitwise_or, (plane << 8 * channel for channel, plane in enumerate(planes)))


def unpack(pixels: jax.Array, channels: int) -> jax.Array:
    """Return the planes, (channels, pixels) int32, of packed pixels (pixels,)."""
    shifts = 8 * np.arange(channels, dtype=np.int32)
    return (pixels[None, :] >> shifts[:, None]) & 255


def look_up(planes: jax.Array, table: jax.Array) -> jax.Array:
    """Replace each grey level by its entry in the table of its channel."""
    entries = planes + 256 * jnp.arange(len(planes))[:, None]
    return table.ravel().at[entries].get(mode="promise_in_bounds")


def blend(degenerate: jax.Array, levels: jax.Array, factor: jax.Array) -> jax.Array:
    """Interpolate between grey levels, or extrapolate, like `PIL.Image.blend`.

    The result is `degenerate` for a factor of 0 and `levels` for a factor of 1, clipped to 0..255 and rounded down to
    int32.
    """
    degenerate, levels = degenerate.astype(jnp.float32), levels.astype(jnp.float32)
    return jnp.clip(degenerate + factor * (levels - degenerate), 0.0, 255.0).astype(jnp.int32)


def greyscale(planes: jax.Array) -> jax.Array:
    """Map planes (channels, ..., pixels) to their ITU-R 601-2 luma (1, ..., pixels), like `PIL.Image.convert("L")`."""
    if len(planes) == 1:
        return planes
    red, green, blue = planes
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)[None]


def mean_grey(planes: jax.Array) -> jax.Array:
    """Return the mean luma, rounded to a grey level, as (1, ..., 1).

    `PIL.ImageEnhance.Contrast` blends with it.
    """
    grey = greyscale(planes)
    size = grey.shape[-1]
    return (2 * grey.sum(-1, keepdims=True) + size) // (2 * size)


def smooth(planes: jax.Array, height: int, width: int) -> jax.Array:
    """Return the 3x3 mean with a weight of 5 for the centre, like `PIL.ImageFilter.SMOOTH`. The border is unchanged.

    Args:
      planes: (..., height * width).
      height, width: of the image.

    Returns:
      Grey levels of the same shape, float32.
    """
    levels = planes.astype(jnp.float32)
    # A neighbour is a shift of the flattened rows. The shift is wrong only at the border, where it is not used.
    padded = jnp.pad(levels, ((0, 0),) * (levels.ndim - 1) + ((width + 1, width + 1),))
    shifts = [y * width + x for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    neighbours = sum(padded[..., shift : shift + height * width] for shift in shifts)
    mean = jnp.floor((neighbours + 5 * levels) * np.float32(1 / 13) + 0.5)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    inner = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
    return jnp.where(inner.reshape((1,) * (levels.ndim - 1) + (-1,)), mean, levels)


def histogram(planes: jax.Array) -> jax.Array:
    """Count the pixels of each grey level in each channel, (channels, 256) int32."""
    channels = len(planes)
    entries = planes + 256 * jnp.arange(channels)[:, None]
    counts = jnp.zeros(256 * channels, jnp.int32).at[entries.ravel()].add(1, mode="promise_in_bounds")
    return counts.reshape(channels, 256)


def _entry(rows: jax.Array, level: jax.Array) -> jax.Array:
    """Return the entry of each row (n, 256) at its level (n,), as a column (n, 1)."""
    return jnp.sum(jnp.where(level[:, None] == LEVELS, rows, 0), axis=1, keepdims=True)


def autocontrast_table(counts: jax.Array) -> jax.Array:
    """Return the tables that stretch each channel from its darkest and brightest level to 0 and 255.

    They equal those of `PIL.ImageOps.autocontrast`. `counts` is the histogram, (channels, 256) int32.
    """
    low, high = jnp.argmax(counts > 0, axis=1), 255 - jnp.argmax(counts[:, ::-1] > 0, axis=1)
    span = jnp.maximum(high - low, 1)[:, None]
    above = 255 * jnp.maximum(LEVELS - low[:, None], 0)
    exact = jnp.minimum(_divide(above, span), 255)
    # Pillow computes in double precision and rounds down, so a quotient that is an integer can come out one too low.
    error = jnp.asarray(_double_rounding())[span[:, 0]]
    short = _entry(error, low) - error > _rounded_up(exact)
    stretched = exact - (short & (exact * span == above))
    return jnp.where((high > low)[:, None], stretched, LEVELS)


@functools.cache
def _double_rounding() -> np.ndarray:
    """Return the rounding error of i * (255 / d) in double precision, (256, 256), for each divisor d and level i."""
    rounding = np.zeros((256, 256), np.float32)
    for d in range(1, 256):
        rounding[d] = [float(Fraction(i * (255.0 / d)) - Fraction(255 * i, d)) for i in range(256)]
    return rounding


def _rounded_up(levels: jax.Array) -> jax.Array:
    """Return how far a number may lie below an integer and still be rounded up to it in double precision.

    This is half a unit in the last place, slightly enlarged so that it includes ties.
    """
    bits = jax.lax.bitcast_convert_type((2 * levels - 1).astype(jnp.float32), jnp.int32)
    power = jax.lax.bitcast_convert_type(bits & 0x7F800000, jnp.float32)  # the smallest power of two >= level
    return power * np.float32(1.0001 * 2.0**-54)


def equalize_table(counts: jax.Array) -> jax.Array:
    """Return the tables that make a histogram (channels, 256) int32 as even as possible, as PIL's `equalize` does."""
    brightest = 255 - jnp.argmax(counts[:, ::-1] > 0, axis=1)
    step = (counts.sum(1, keepdims=True) - _entry(counts, brightest)) // 255
    table = jnp.minimum(_divide(step // 2 + _below(counts), jnp.maximum(step, 1)), 255)
    return jnp.where(step > 0, table, LEVELS)


def _below(counts: jax.Array) -> jax.Array:
    """Count the pixels darker than each level, by cumulative sums within and over 16 groups of 16 levels."""
    exact = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
    sixteens = counts.reshape(-1, 16, 16).astype(jnp.float32)
    below = exact(sixteens, BELOW) + exact(sixteens.sum(2), BELOW)[:, :, None]
    return below.reshape(counts.shape).astype(jnp.int32)


def _divide(numerator: jax.Array, divisor: jax.Array) -> jax.Array:
    """Divide non-negative integers, rounding down."""
    quotient = jnp.floor(numerator.astype(jnp.float32) / divisor.astype(jnp.float32)).astype(jnp.int32)
    remainder = numerator - quotient * divisor
    return quotient + (remainder >= divisor) - (remainder < 0)
