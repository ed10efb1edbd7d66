"""Move pixels by warps, crops, flips and resizing."""

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.augment.draws import first_where, integers, log_uniform, random_place

ONE = 65536  # 1.0 in the 16.16 fixed point of `warp`
# Added to scaled levels before they are rounded. The error of float32 would round ties in different directions on
# different devices; so they are rounded up, as by Pillow.
TIE = 1e-3


def fixed_point(matrix: np.ndarray) -> np.ndarray:
    """Convert affine matrices (..., 6), as in `PIL.Image.transform`, to the int32 coefficients of `warp`."""
    a, b, c, d, e, f = np.moveaxis(np.asarray(matrix, np.float64), -1, 0)
    centred = np.stack([a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2], -1)  # a pixel is sampled at its centre
    return np.floor(centred * ONE + 0.5).astype(np.int32)


def warp(pixels: jax.Array, coefficients: jax.Array, height: int, width: int) -> jax.Array:
    """Transform an image affinely with nearest-neighbour sampling, with 0 where the source is outside of the image.

    The arithmetic is Pillow's integer arithmetic, so the result equals `Image.transform(size, AFFINE, matrix, NEAREST)`
    bit for bit. The cost is one gather.

    Args:
      pixels: (height * width,), row by row.
      coefficients: (6,) int32, from `fixed_point`.
      height, width: of the image.

    Returns:
      The transformed pixels, (height * width,).
    """
    from_x, from_y = sources(coefficients, height, width)
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    source = jnp.where(inside, from_y * width + from_x, height * width).ravel()
    return jnp.append(pixels, jnp.zeros(1, pixels.dtype)).at[source].get(mode="promise_in_bounds")


def sources(coefficients: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Return the column and the row, each (height, width) int32, that a warp takes each pixel from.

    For pixel (x, y) and coefficients a to f, they are a x + b y + c and d x + e y + f, rounded down. They can be
    outside of the image.
    """
    a, b, c, d, e, f = coefficients
    x, y = jnp.arange(width)[None, :], jnp.arange(height)[:, None]
    return (a * x + (b * y + c)) >> 16, (d * x + (e * y + f)) >> 16


def pad_and_crop(key: jax.Array, image: jax.Array, padding: int) -> jax.Array:
    """Pad with black on all sides and crop to the old size at a random place, like torchvision's `RandomCrop(padding)`.

    Args:
      key: the random key.
      image: (height, width, channels) uint8.
      padding: in pixels. The crop is shifted by -padding to padding along each axis, all equally likely.
    """
    place = integers(key, (2,), 2 * padding + 1)

    def slice_padded(image: jax.Array, place: jax.Array) -> jax.Array:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        return jax.lax.dynamic_slice(padded, (place[0], place[1], 0), image.shape)

    def shift(image: jax.Array, place: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        top, left = place - padding
        # Columns without a 1 are the padding.
        rows, columns = (
            jax.nn.one_hot(jnp.arange(size) + start, size, dtype=jnp.bfloat16, axis=0)
            for size, start in ((height, top), (width, left))
        )
        return jnp.einsum("hy,hwc,wx->yxc", rows, image.astype(jnp.bfloat16), columns).astype(image.dtype)

    return jax.lax.platform_dependent(image, place, tpu=shift, default=slice_padded)


def flip(image: jax.Array, flipped: jax.Array) -> jax.Array:
    """Mirror an image (height, width, channels) left to right if `flipped`, a bool scalar, is true."""
    return jnp.where(flipped, image[:, ::-1], image)


def crop_box(key: jax.Array, height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]):
    """Draw the box of an Inception crop, like torchvision's `RandomResizedCrop.get_params`.

    Ten boxes are drawn, and the first that fits into the image is used. If none fits, the result is the largest central
    box within `aspect`.

    Args:
      key: the random key.
      height, width: of the image, in pixels.
      area: the bounds of the fraction of the image that the box covers, which is drawn uniformly.
      aspect: the bounds of the box's width divided by its height, which is drawn log-uniformly.

    Returns:
      (top, left, height, width) in pixels, int32.
    """
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    target = height * width * jax.random.uniform(area_key, (10,), minval=area[0], maxval=area[1])
    ratio = log_uniform(aspect_key, (10,), aspect)
    heights = jnp.round(jnp.sqrt(target / ratio)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(target * ratio)).astype(jnp.int32)
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    box_height, box_width = first_where(fits, heights), first_where(fits, widths)
    top, left = random_place(place_key, height - box_height + 1, width - box_width + 1)
    fallback = central_box(height, width, (1, min(max(width / height, aspect[0]), aspect[1])), 1.0)
    return tuple(
        jnp.where(fits.any(), *pair) for pair in zip((top, left, box_height, box_width), fallback, strict=True)
    )


def resized_crop(image: jax.Array, box: tuple[jax.Array, ...], size: tuple[int, int]) -> jax.Array:
    """Scale a box of an image to a size, antialiased, like Pillow's `image.crop(box).resize(size, BILINEAR)`.

    Pixels outside of the box have no effect. The cost is two products with (new size, old size) matrices.

    Args:
      image: (height, width, channels).
      box: (top, left, height, width) in pixels, numbers or traced scalars.
      size: (height, width) of the result.

    Returns:
      (*size, channels) float32, in the grey levels of the image.
    """
    top, left, height, width = box
    rows = resampling(image.shape[0], size[0], top, height)
    columns = resampling(image.shape[1], size[1], left, width)
    # The default precision of a TPU would round grey levels to 8 bits of mantissa.
    product = {"precision": jax.lax.Precision.HIGHEST}
    return jnp.einsum("yh,hwc,xw->yxc", rows, image.astype(jnp.float32), columns, **product)


def resampling(old: int, new: int, start: jax.Array, length: jax.Array) -> jax.Array:
    """Return the triangle weights that scale an interval of pixels along one axis.

    Args:
      old: the number of old pixels.
      new: the number of new pixels.
      start, length: the interval, in old pixels.

    Returns:
      (new, old) float32; each row adds up to 1.
    """
    scale = jnp.asarray(length, jnp.float32) / new
    centres = start + (jnp.arange(new) + 0.5) * scale
    pixels = jnp.arange(old) + 0.5
    weights = jnp.maximum(1.0 - jnp.abs(pixels[None, :] - centres[:, None]) / jnp.maximum(scale, 1.0), 0.0)
    weights = jnp.where(((pixels > start) & (pixels < start + length))[None, :], weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def central_box(height: int, width: int, size: tuple[float, float], fraction: float) -> tuple[int, int, int, int]:
    """Return the largest central box with the aspect ratio of `size`, its sides then multiplied by `fraction`.

    Returns:
      (top, left, height, width) in pixels.
    """
    scale = fraction * min(height / size[0], width / size[1])
    box = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return (height - box[0]) // 2, (width - box[1]) // 2, *box
