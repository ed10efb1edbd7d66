"""Image files, read as 8-bit grey or RGB arrays, upright and in the requested size."""

import dataclasses
import functools
import io
import math
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from mixer_jax.errors import UserError, in_one_line, printable
from mixer_jax.messages import warn

_AVIF = "avif" in features.modules and features.check("avif")  # newer Pillow, if built with AVIF
# The formats that are read, whatever the file is called. For PostScript, for example, Pillow would start a program.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", *(("AVIF",) if _AVIF else ()))
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif")
# The filters of `Fit`, all with antialiasing.
RESIZES = {
    "fit": Image.Resampling.BILINEAR,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
DRAFT_MARGIN = 2  # as in Pillow's thumbnails: the pixels differ little from those of decoding in full


@dataclasses.dataclass(frozen=True)
class Fit:
    """A way to scale and crop images to one size.

    Attributes:
      size: (height, width), or () to keep the size of each image.
      resize: a key of `RESIZES`. "fit" crops the centre to the aspect ratio of `size`, then scales the crop. Every
        other key names a resampling filter: the image is scaled to cover `size`, keeping its aspect ratio except for
        rounding to whole pixels, and its centre is cropped, as in torchvision and timm. If a fraction follows the
        filter, as in "bicubic/0.875", the image is scaled to cover `size` divided by that fraction.
      draft: whether JPEG files are decoded at 1/2, 1/4 or 1/8 of their size if the reduced size is still at least
        `DRAFT_MARGIN` times the size that they are scaled to. This decodes a photograph of 12 megapixels about ten
        times as fast.
      bits: the number of bits that the levels of 16-bit images really use, 8 to 16; the level 2**bits - 1 is white.
    """

    size: tuple[int, ...] = ()
    resize: str = "fit"
    draft: bool = False
    bits: int = 16

    def __post_init__(self):
        """Raise `ValueError` if `resize` or `bits` is not valid."""
        if not 8 <= self.bits <= 16:
            raise ValueError(f"bits {self.bits}")
        if self._filter not in RESIZES or not 0 < self.crop <= 1 or (self._filter == "fit" and self.crop < 1):
            raise ValueError(f"resize {self.resize}")

    @property
    def crop(self) -> float:
        """The fraction of the scaled image that is kept."""
        return float(self.resize.partition("/")[2] or 1)

    @property
    def _filter(self) -> str:
        return self.resize.partition("/")[0]

    def reduce(self, image: Image.Image) -> None:
        """If `draft` is set, make Pillow decode a JPEG file, opened but not yet decoded, at a smaller scale."""
        if self.draft and self.size:
            height, width = (math.ceil(DRAFT_MARGIN * side / self.crop) for side in self.size)
            image.draft(None, (height, width) if is_turned(image) else (width, height))

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return an image scaled, with antialiasing, and cropped."""
        if not self.size or (image.size == self.size[::-1] and self.crop == 1):
            return image
        height, width = self.size
        if self._filter == "fit":
            return ImageOps.fit(image, (width, height), RESIZES["fit"])
        rows, columns = (math.floor(side / self.crop) for side in self.size)
        if rows == columns:  # the other side is rounded down, as in torchvision
            shorter = min(image.size)
            scaled = (int(rows * image.width / shorter), int(rows * image.height / shorter))
        else:  # as in timm
            ratio = min(image.height / rows, image.width / columns)
            scaled = (round(image.width / ratio), round(image.height / ratio))
        image = image.resize(scaled, RESIZES[self._filter])
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def __str__(self) -> str:
        """Describe the result, for a fingerprint of the pixels."""
        words = [str(self.size)]
        if self.resize != "fit":
            words.append(self.resize)
        if self.draft and self.size:
            words.append("draft")
        if self.bits < 16:
            words.append(f"{self.bits} bits")
        return " ".join(words)


UNCHANGED = Fit()
# By the orientation in the EXIF tag. Pillow's own `exif_transpose` fails if another tag is damaged.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1")  # kinds of files that phones may call .jpg


def read_image(path: Path, fit: Fit = UNCHANGED, channels: int = 3, content: bytes | None = None) -> np.ndarray:
    """Read an image file as 8-bit grey or RGB.

    The image is rotated as its EXIF tag says. Transparent parts become white, and 16-bit levels become 8-bit. Then
    the image is scaled and cropped.

    Args:
      path: the file.
      fit: how the image is scaled and cropped.
      channels: 1 for grey, 3 for RGB.
      content: the content of the file; by default, it is read.

    Returns:
      (height, width, channels) uint8.

    Raises:
      UserError: if the file cannot be read, is damaged, or is not an image in one of the `IMAGE_FORMATS`.
    """
    try:
        content = path.read_bytes() if content is None else content
    except OSError as error:
        raise UserError(f"cannot read image {printable(path)}: {error.strerror}") from error
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            fit.reduce(image)
            return as_pixels(image, fit, channels)
    except Exception as error:  # each of Pillow's decoders raises its own exceptions, and warnings may be raised
        raise UserError(f"cannot read image {printable(path)}: {problem(content, error)}") from error


def problem(content: bytes, error: Exception) -> str:
    """Return why the content of an image file cannot be read, given the exception from trying."""
    if not content:
        return "it is empty"
    if content[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if content.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the image; run git lfs pull"
    if content[4:8] == b"ftyp" and content[8:12] in HEIC:
        return "it is a HEIC file: convert it to JPEG"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image in a supported format"
    return in_one_line(error)


def as_pixels(image: Image.Image, fit: Fit = UNCHANGED, channels: int = 3) -> np.ndarray:
    """Return an image as an array, as `read_image` does, but ignore `draft`, which would change `image`."""
    if (turn := TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 0))) is not None:
        image = image.transpose(turn)
    flat = _flat(image, fit.bits)
    pixels = np.asarray(fit(flat.convert("L" if channels == 1 else "RGB")))
    return pixels[..., None] if channels == 1 else pixels


def is_turned(image: Image.Image) -> bool:
    """Return whether the EXIF tag of an image turns its rows into columns."""
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def highest_level(image: Image.Image) -> int:
    """Return the highest level in an image with 16 bits; 0 for other images."""
    return int(np.asarray(image).max()) if image.mode.startswith("I") else 0


@functools.cache
def _warn_of_levels(bits: int) -> None:
    warn(f"an image has levels above {2**bits - 1}, which become white: all 16-bit images are read as {bits} bits")


def _flat(image: Image.Image, bits: int) -> Image.Image:
    """Return the image with 8 bits and without transparency."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        levels = np.asarray(image).astype(np.int32).clip(0) >> (bits - 8)  # some files' levels are signed
        if levels.max() > 255:
            _warn_of_levels(bits)
        if (clear := image.info.get("transparency")) is not None:
            levels[np.asarray(image) == clear] = 255
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if image.mode == "F":  # floating point; the levels of black and white are not known
        raise UserError("the image has floating-point levels: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
