"""Images of a Mixer: its token-mixing units, its patch embedding, and what its tokens contribute."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixer_jax.reporting.evidence import Evidence

TITLE = 30  # pixels high


def units_by_frequency(kernel: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the weights of token-mixing units on the grid of patches, sorted as in the paper's figure 5.

    Units are sorted by their mean spatial frequency, weighted by the power at each frequency, lowest first. Then they
    are paired: each unit, taken in this order, is followed by the remaining unit whose weights are closest to the
    negative of its own weights.

    Args:
      kernel: (tokens, units), of the first layer of a token-mixing MLP.
      grid: rows and columns of patches.

    Returns:
      Weights (units, rows, columns), each unit scaled to a largest absolute value of 1.
    """
    units = kernel.T.reshape(-1, *grid)
    power = np.abs(np.fft.fft2(units)) ** 2
    power[:, 0, 0] = 0.0  # a constant has no frequency
    frequency = np.hypot(np.fft.fftfreq(grid[0])[:, None], np.fft.fftfreq(grid[1])[None])
    total = power.sum((1, 2))
    mean = (power * frequency).sum((1, 2)) / np.where(total > 0, total, 1.0)
    flat = units.reshape(len(units), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    likeness, order, left = flat @ flat.T, [], list(np.argsort(mean, kind="stable"))
    while left:
        unit = left.pop(0)
        order.append(unit)
        if left:
            order.append(left.pop(int(np.argmin(likeness[unit, left]))))
    chosen = units[order]
    return chosen / np.maximum(np.abs(chosen).max((1, 2), keepdims=True), 1e-12)


def embedding_filters(kernel: np.ndarray) -> np.ndarray:
    """Return the filters of the patch embedding as images, sorted by norm, the largest first.

    Args:
      kernel: (patch, patch, channels, features), of the stem.

    Returns:
      Images (features, patch, patch, 1 or 3) from 0 to 1, where 0.5 is a weight of zero; each is scaled by its largest
      absolute weight. If there are neither 1 nor 3 channels, they are averaged into one.
    """
    filters = np.moveaxis(kernel, -1, 0)
    if filters.shape[-1] not in (1, 3):
        filters = filters.mean(-1, keepdims=True)
    order = np.argsort(-np.linalg.norm(filters.reshape(len(filters), -1), axis=1), kind="stable")
    return 0.5 + 0.5 * filters[order] / np.maximum(np.abs(filters[order]).max((1, 2, 3), keepdims=True), 1e-12)


def draw_tiles(rows: Sequence[tuple[str, np.ndarray]], columns: int = 16) -> bytes:
    """Return a PNG of titled groups of small images.

    Args:
      rows: pairs of a title and images, either (n, height, width) from -1 (black) to 1 (white), or (n, height, width,
        1 or 3) from 0 to 1.
      columns: images per line.
    """
    mosaics = [(title, _mosaic(tiles, columns)) for title, tiles in rows]
    width, height = mosaics[0][1].width, sum(TITLE + mosaic.height for _, mosaic in mosaics)
    canvas, top = Image.new("RGB", (width, height), "white"), 0
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TITLE // 2)
    for title, mosaic in mosaics:
        draw.text((width // 2, top + TITLE // 2), title, "black", font, anchor="mm")
        canvas.paste(mosaic, (0, top + TITLE))
        top += TITLE + mosaic.height
    file = BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()


def _mosaic(tiles: np.ndarray, columns: int, side: int = 56, gap: int = 6) -> Image.Image:
    """Return the images line by line on white, each `side` pixels wide, `gap` pixels apart."""
    shades = np.clip(0.5 + 0.5 * tiles[..., None] if tiles.ndim == 3 else tiles, 0.0, 1.0)
    pixels = np.broadcast_to(np.round(255 * shades).astype(np.uint8), (*tiles.shape[:3], 3))
    height = max(1, round(side * tiles.shape[1] / tiles.shape[2]))
    canvas = Image.new("RGB", (columns * (side + gap), -(-len(tiles) // columns) * (height + gap)), "white")
    how = Image.Resampling.BOX if tiles.shape[2] > side else Image.Resampling.NEAREST
    for i, tile in enumerate(pixels):
        line, column = divmod(i, columns)
        picture = Image.fromarray(np.ascontiguousarray(tile)).resize((side, height), how)
        canvas.paste(picture, (column * (side + gap) + gap // 2, line * (height + gap)))
    return canvas


def token_maps(evidence: Evidence) -> list[list[tuple[np.ndarray, str]]]:
    """Return each mapped image beside the maps of what its tokens add, with their descriptions."""
    rows = []
    for place, maps in zip(evidence.mapped, evidence.maps, strict=True):
        mistake = evidence.wrong[evidence.chosen[place]]
        scaled = maps / max(float(np.abs(maps).max()), 1e-12)
        shades = np.round(127.5 * (1 + scaled)).astype(np.uint8)[..., None]
        names = ("what each token adds to the predicted class", "what each token adds to the true class")
        row = [(evidence.images[place], "the image"), *zip(shades, names, strict=True)]
        rows.append(row if mistake else row[:2])
    return rows
