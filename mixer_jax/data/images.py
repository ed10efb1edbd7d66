"""Image files: whatever they hold, as grey or RGB of 8 bits, the right way up, of the size that is asked for."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mixer_jax.errors import UserError

# What a file may really hold, whatever it is called; not what Pillow would start another program for, as PostScript.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def read_image(path: Path, image_size: tuple[int, ...] = (), channels: int = 3) -> np.ndarray:
    """Reads an image file: turned as its EXIF tag says, what is transparent on white, 16 bits to 8, then `fit`.

    Args:
      path: the file.
      image_size: (height, width) to fit it to, or () to take it as it is.
      channels: 1 for grey, 3 for RGB.

    Returns:
      (height, width, channels) uint8.

    Raises:
      UserError: if it is no image, or damaged.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return as_pixels(ImageOps.exif_transpose(image), image_size, channels)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read image {path}: {next(iter(str(error).splitlines()), 'damaged')}") from error


def as_pixels(image: Image.Image, image_size: tuple[int, ...] = (), channels: int = 3) -> np.ndarray:
    """An image as `read_image` returns it."""
    pixels = np.asarray(fit(_flat(image).convert("L" if channels == 1 else "RGB"), image_size))
    return pixels[..., None] if channels == 1 else pixels


def fit(image: Image.Image, image_size: tuple[int, ...]) -> Image.Image:
    """Scales an image to cover (height, width), antialiased, and crops the centre; () leaves it as it is."""
    if not image_size or image.size == image_size[::-1]:
        return image
    height, width = image_size
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def _flat(image: Image.Image) -> Image.Image:
    """The image without transparency, and with 8 bits."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
