"""The operations of RandAugment and AutoAugment, with torchvision's magnitudes, as one compiled function.

Under `vmap`, every branch is computed for every image. So all operations share one path: a warp, cheap pointwise
changes of the pixel values, and a blend; the parts that an operation does not use leave the pixels as they are. The
cost per image is one gather and a few passes over its pixels. Three operations need more: AutoContrast and Equalize
need a histogram and a lookup, Sharpness needs a 3x3 mean. These are computed only for the images of a batch that need
them, in groups of 8; the last group is filled up with other images, which stay unchanged (see `selection.only_where`).
A TPU is slow at gathers, and at loops whose length depends on the data. On a TPU, the warp and these three operations
are therefore computed for all images, by matrix products (see `products`).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.augment import color, products
from mixer_jax.augment.geometry import fixed_point, warp
from mixer_jax.augment.selection import only_where

RANDAUGMENT = (  # in the order of torchvision
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
OPERATIONS = (*RANDAUGMENT, "Invert")  # only AutoAugment draws Invert
INDEX = {name: i for i, name in enumerate(OPERATIONS)}
# The operations that are drawn with either sign, and those that have a magnitude.
SIGNED = frozenset(OPERATIONS[1:10])
WITH_MAGNITUDE = frozenset(OPERATIONS[1:12])


@dataclasses.dataclass(frozen=True)
class Magnitudes:
    """The strengths of the operations for images of one size, as in torchvision's `_augmentation_space`.

    Attributes:
      height, width: of the images, in pixels.
      num_bins: the number of bins. Magnitudes go from bin 0, the weakest, to num_bins - 1.
    """

    height: int
    width: int
    num_bins: int = 31

    def value(self, operation: str, bin_: int, sign: int = 1) -> float:
        """Return the magnitude of an operation in its own unit, or 0 if it has none.

        Units are pixels for translations, the slope for shears, degrees for Rotate, the remaining bits for Posterize,
        the threshold for Solarize, and the factor minus 1 for blends.

        Args:
          operation: one of `OPERATIONS`.
          bin_: the bin of the magnitude.
          sign: 1 or -1; unsigned operations ignore it.
        """
        if operation == "Posterize":
            return 8 - round(4 * bin_ / (self.num_bins - 1))
        if operation == "Solarize":
            return _linspace(255.0, 0.0, self.num_bins, bin_)
        if operation not in SIGNED:
            return 0.0
        top = {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30.0}
        top |= {"TranslateX": 150 / 331 * self.width, "TranslateY": 150 / 331 * self.height}
        return sign * _linspace(0.0, top.get(operation, 0.9), self.num_bins, bin_)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """The settings for each operation, bin and sign (the positive one first), (operations * bins * 2, 9) int32.

        The columns are six coefficients of the warp, the factor of a blend (a float32 bitcast to int32), the mask of
        the bits that Posterize keeps, and the threshold of Solarize (also a bitcast float32).
        """
        cases = [(name, b, sign) for name in OPERATIONS for b in range(self.num_bins) for sign in (1, -1)]
        factor = np.float32([1 + self.value(*case) for case in cases])
        keep = np.int32([256 - 2 ** (8 - self.value("Posterize", b)) for _, b, _ in cases])
        threshold = np.float32([self.value("Solarize", b) for _, b, _ in cases])
        rest = [factor.view(np.int32), keep, threshold.view(np.int32)]
        return np.column_stack([fixed_point([self._matrix(*case) for case in cases]), *rest])

    def _matrix(self, operation: str, bin_: int, sign: int) -> tuple[float, ...]:
        """Return the affine matrix from new to old pixels, as in `PIL.Image.transform`."""
        value = self.value(operation, bin_, sign)
        if operation == "ShearX":
            return 1, value, 0, 0, 1, 0
        if operation == "ShearY":
            return 1, 0, 0, value, 1, 0
        if operation == "TranslateX":
            return 1, 0, -int(value), 0, 1, 0
        if operation == "TranslateY":
            return 1, 0, 0, 0, 1, -int(value)
        if operation == "Rotate":  # `PIL.Image.rotate`: counterclockwise, about the centre, rounded to 15 digits
            x, y = self.width / 2, self.height / 2
            cos = round(math.cos(math.radians(-value)), 15)
            sin = round(math.sin(math.radians(-value)), 15)
            return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y
        return 1, 0, 0, 0, 1, 0


def _linspace(start: float, end: float, num: int, index: int) -> float:
    """Return `torch.linspace(start, end, num)[index]`, correct to the last bit.

    Blends are rounded down, so the last bit can change the resulting level.
    """
    start, end = np.float32(start), np.float32(end)
    step = float((end - start) / np.float32(num - 1))
    from_end = num - 1 - index
    return float(np.float32(float(start) + step * index if index < from_end else float(end) - step * from_end))


def apply(
    image: jax.Array, operation: jax.Array, bin_: jax.Array, negative: jax.Array, magnitudes: Magnitudes
) -> jax.Array:
    """Apply one operation to one image.

    The result equals that of torchvision's functions on PIL images, with nearest-neighbour interpolation and black
    fill.

    Args:
      image: (height, width, channels) uint8, with 1 or 3 channels.
      operation: an index into OPERATIONS.
      bin_: the bin of the magnitude.
      negative: a bool, whether the magnitude is negative; unsigned operations ignore it.
      magnitudes: the magnitudes for images of this size.

    Returns:
      The changed image, uint8.
    """
    drawn = (jnp.asarray(x).reshape(1, 1) for x in (operation, bin_, negative))
    return apply_all(image[None], tuple(drawn), magnitudes)[0]


def apply_all(images: jax.Array, drawn: tuple[jax.Array, jax.Array, jax.Array], magnitudes: Magnitudes) -> jax.Array:
    """Apply operations, one after the other, to each image of a batch.

    Args:
      images: (batch, height, width, channels) uint8.
      drawn: operations, bins and whether the magnitudes are negative, each (batch, number of operations); see `apply`.
      magnitudes: the magnitudes for images of this size.

    Returns:
      The changed images, uint8.
    """
    operations, bins, negative = drawn
    settings = jnp.asarray(magnitudes.table)[(operations * magnitudes.num_bins + bins) * 2 + negative]
    settings = jnp.concatenate([operations[..., None], settings], axis=-1)
    return jax.lax.platform_dependent(images, settings, tpu=_on_planes, default=jax.vmap(_on_pixels))


def _on_planes(images: jax.Array, settings: jax.Array) -> jax.Array:
    batch, height, width, channels = images.shape

    def one(planes: jax.Array, settings: jax.Array) -> tuple[jax.Array, None]:
        operation = settings[:, 0]
        planes = products.warp(planes, settings[:, 1:7], height, width)
        equalize = operation == INDEX["Equalize"]
        uneven = equalize | (operation == INDEX["AutoContrast"])
        planes = jnp.where(uneven[None, :, None], products.even_out(planes, equalize), planes)
        return _adjust(planes, settings.T[:, None, :, None], color.smooth(planes, height, width)), None

    planes = jnp.moveaxis(images, -1, 0).reshape(channels, batch, -1).astype(jnp.int32)
    planes, _ = jax.lax.scan(one, planes, settings.swapaxes(0, 1))
    return jnp.moveaxis(planes.reshape(channels, *images.shape[:3]), 0, -1).astype(jnp.uint8)


def _on_pixels(image: jax.Array, settings: jax.Array) -> jax.Array:
    height, width, channels = image.shape
    identity = jnp.broadcast_to(color.LEVELS, (channels, 256))

    def one(pixels: jax.Array, settings: jax.Array) -> tuple[jax.Array, None]:
        operation, factor = settings[0], _floats(settings[7])
        pixels = warp(pixels, settings[1:7], height, width)
        uneven = (operation == INDEX["AutoContrast"]) | (operation == INDEX["Equalize"])
        table = only_where(uneven, _table, identity, pixels, operation)
        pixels = only_where(uneven, _look_up, pixels, table)
        sharpen = functools.partial(_sharpen, height, width, channels)
        pixels = only_where(operation == INDEX["Sharpness"], sharpen, pixels, factor)
        return color.pack(_adjust(color.unpack(pixels, channels), settings)), None

    # A loop, although it is short: XLA stores its carry, instead of computing the pixels again for each use.
    pixels, _ = jax.lax.scan(one, color.pack(image.reshape(-1, channels).T.astype(jnp.int32)), settings)
    return color.unpack(pixels, channels).T.reshape(image.shape).astype(jnp.uint8)


def _adjust(levels: jax.Array, settings: jax.Array, smoothed: jax.Array | None = None) -> jax.Array:
    """Posterize, solarize, invert or blend planes (channels, ..., pixels), as `settings` (10, ...) say.

    The settings are the operation, followed by its row of `Magnitudes.table`. If `smoothed` planes are given, the
    blends include Sharpness, which blends with these planes.
    """
    operation, factor, keep, threshold = settings[0], _floats(settings[7]), settings[8], _floats(settings[9])
    levels = jnp.where(operation == INDEX["Posterize"], levels & keep, levels)
    inverted = (operation == INDEX["Solarize"]) & (levels >= threshold)
    levels = jnp.where(inverted | (operation == INDEX["Invert"]), 255 - levels, levels)
    is_color, is_contrast = operation == INDEX["Color"], operation == INDEX["Contrast"]
    degenerate = jnp.where(is_color, color.greyscale(levels), jnp.where(is_contrast, color.mean_grey(levels), 0))
    blended = is_color | is_contrast | (operation == INDEX["Brightness"])
    if smoothed is not None:
        is_sharpness = operation == INDEX["Sharpness"]
        degenerate, blended = jnp.where(is_sharpness, smoothed, degenerate), blended | is_sharpness
    return color.blend(degenerate, levels, jnp.where(blended, factor, 1.0))


def _floats(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _table(identity: jax.Array, pixels: jax.Array, operation: jax.Array) -> jax.Array:
    """Return the table (channels, 256) of AutoContrast or Equalize for packed pixels."""
    counts = color.histogram(color.unpack(pixels, len(identity)))
    is_equalize = operation == INDEX["Equalize"]
    return jnp.where(is_equalize, color.equalize_table(counts), color.autocontrast_table(counts))


def _look_up(pixels: jax.Array, table: jax.Array) -> jax.Array:
    return color.pack(color.look_up(color.unpack(pixels, len(table)), table))


def _sharpen(height: int, width: int, channels: int, pixels: jax.Array, factor: jax.Array) -> jax.Array:
    planes = color.unpack(pixels, channels)
    return color.pack(color.blend(color.smooth(planes, height, width), planes, factor))
