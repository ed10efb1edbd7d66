"""The operations of RandAugment and AutoAugment, with torchvision's magnitudes, as one compiled function of all.

Under `vmap` a branch is computed for every image, whichever it takes, so there is one path and no branches: a warp, a
lookup table and a blend, of which an operation is one and leaves the other two idle. It costs an image two gathers, a
histogram, a 3x3 mean and a few passes over its pixels, whichever operation it gets, instead of fifteen operations.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.augment import color
from mixer_jax.augment.geometry import fixed_point, warp

# In the order of torchvision's RandAugment; Invert is only AutoAugment's.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert",
)  # fmt: skip
INDEX = {name: i for i, name in enumerate(OPERATIONS)}
# Drawn with either sign; and those that have a magnitude at all.
SIGNED = frozenset(OPERATIONS[1:10])
WITH_MAGNITUDE = frozenset(OPERATIONS[1:12])


@dataclasses.dataclass(frozen=True)
class Magnitudes:
    """How strong an operation is, for images of one size; as torchvision's `_augmentation_space`.

    Attributes:
      height, width: of the images, in pixels.
      num_bins: magnitudes run from bin 0, weakest, to num_bins - 1.
    """

    height: int
    width: int
    num_bins: int = 31

    def value(self, operation: str, bin_: int, sign: int = 1) -> float:
        """The magnitude in the operation's own unit: degrees, pixels, bits, a threshold, or a factor minus 1."""
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
    def tables(self) -> dict[str, np.ndarray]:
        """What `apply` looks up: `warp` (operations, bins, 2, 6) int32, `factor` (operations, bins, 2), `keep` (bins,)
        bits of posterize and `threshold` (bins,) of solarize; the axis of two is for the signs + and -."""
        bins = range(self.num_bins)
        cases = [[[(name, b, sign) for sign in (1, -1)] for b in bins] for name in OPERATIONS]
        return {
            "warp": fixed_point([[[self._matrix(*case) for case in row] for row in rows] for rows in cases]),
            "factor": np.float32([[[1 + self.value(*case) for case in row] for row in rows] for rows in cases]),
            "keep": np.int32([256 - 2 ** (8 - self.value("Posterize", b)) for b in bins]),
            "threshold": np.float32([self.value("Solarize", b) for b in bins]),
        }

    def _matrix(self, operation: str, bin_: int, sign: int) -> tuple[float, ...]:
        """Where pixels come from, as `PIL.Image.transform` has it."""
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
    """`torch.linspace(start, end, num)[index]` to the last bit, which decides what a blend is rounded down to."""
    start, end = np.float32(start), np.float32(end)
    step = float((end - start) / np.float32(num - 1))
    from_end = num - 1 - index
    return float(np.float32(float(start) + step * index if index < from_end else float(end) - step * from_end))


def apply(
    image: jax.Array, operation: jax.Array, bin_: jax.Array, negative: jax.Array, magnitudes: Magnitudes
) -> jax.Array:
    """Applies one operation to one image.

    Equals torchvision's functions on PIL images with nearest-neighbour interpolation and black fill.

    Args:
      image: (height, width, channels) uint8, 1 or 3 channels.
      operation: an index into OPERATIONS.
      bin_: of the magnitude.
      negative: bool, the sign of the magnitude; unsigned operations ignore it.
      magnitudes: for images of this size.

    Returns:
      The changed image, uint8.
    """
    pixels = transform(color.pack(image), operation, bin_, negative, magnitudes, image.shape[-1])
    return color.unpack_image(pixels, image.shape)


def transform(
    pixels: jax.Array,
    operation: jax.Array,
    bin_: jax.Array,
    negative: jax.Array,
    magnitudes: Magnitudes,
    channels: int,
) -> jax.Array:
    """As `apply`, on packed pixels; for one operation after the other."""
    tables = {name: jnp.asarray(table) for name, table in magnitudes.tables.items()}
    height, width, sign = magnitudes.height, magnitudes.width, jnp.asarray(negative, jnp.int32)
    factor = tables["factor"][operation, bin_, sign]
    planes = color.unpack(warp(pixels, tables["warp"][operation, bin_, sign], height, width), channels)
    table = _table(planes, operation, factor, tables["keep"][bin_], tables["threshold"][bin_])
    planes = color.look_up(planes, table)
    is_color, is_sharpness = operation == INDEX["Color"], operation == INDEX["Sharpness"]
    grey = jnp.broadcast_to(color.greyscale(planes).astype(jnp.float32), planes.shape)
    degenerate = jnp.where(is_color, grey, color.smooth(planes, height, width))
    return color.pack_planes(color.blend(degenerate, planes, jnp.where(is_color | is_sharpness, factor, 1.0)))


def _table(
    planes: jax.Array, operation: jax.Array, factor: jax.Array, keep: jax.Array, threshold: jax.Array
) -> jax.Array:
    """The lookup table of an operation, (channels, 256) int32; for those that have none, one that does nothing."""
    levels = jnp.broadcast_to(color.LEVELS, (len(planes), 256))
    brightness, contrast, posterize, solarize, autocontrast, equalize, invert = (
        operation == INDEX[name]
        for name in ("Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
    )
    # Inversion is a blend too: as far beyond the middle grey as a level was on this side.
    centre = jnp.where(contrast, color.mean_grey(planes).astype(jnp.float32), jnp.where(invert, 127.5, 0.0))
    factor = jnp.where(brightness | contrast, factor, jnp.where(invert, -1.0, 1.0))
    table = color.blend(centre, levels, factor)
    table = jnp.where(posterize, levels & keep, table)
    table = jnp.where(solarize & (levels >= threshold), 255 - levels, table)
    counts = color.histogram(planes)
    table = jnp.where(autocontrast, color.autocontrast_table(counts), table)
    return jnp.where(equalize, color.equalize_table(counts), table)
