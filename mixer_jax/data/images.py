"""Image files, read as 8-bit grey or RGB arrays, upright and in the requested size."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mixer_jax.errors import UserError

# The formats that are read, whatever the file is called. For PostScript, for example, Pillow would start a program.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def read_image(path: Path, image_size: tuple[int, ...] = (), channels: int = 3) -> np.ndarray:
    """Read an image file as 8-bit grey or RGB.

    The image is rotated as its EXIF tag says. Transparent parts become white, and 16-bit levels become 8-bit. Then
    `fit_to` scales and crops the image.

    Args:
      path: the file.
      image_size: (height, width) to fit the image to, or () to keep its size.
      channels: 1 for grey, 3 for RGB.

    Returns:
      (height, width, channels) uint8.

    Raises:
      UserError: if the file cannot be read, is damaged, or is not an image in one of the `IMAGE_FORMATS`.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return as_pixels(image, image_size, channels)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read image {path}: {next(iter(str(error).splitlines()), 'damaged')}") from error


def as_pixels(image: Image.Image, image_size: tuple[int, ...] = (), channels: int = 3) -> np.ndarray:
    """Return an image as an array, as `read_image` does."""
    pixels = np.asarray(
        fit_to(_flat(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB"), image_size)
    )
    return pixels[..., None] if channels == 1 else pixels


def fit_to(image: Image.Image, image_size: tuple[int, ...]) -> Image.Image:
    """Scale an image to cover `image_size`, antialiased, and crop the centre.

    Args:
      image: the image.
      image_size: (height, width), or () to return the image unchanged.
    """
    if not image_size or image.size == image_size[::-1]:
        return image
    height, width = image_size
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def _flat(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits and without transparency."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
