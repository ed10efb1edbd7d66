"""Rows of images with captions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.reporting.text import families, plain


@dataclasses.dataclass(frozen=True)
class Row:
    """Images (height, width, 1 or 3) uint8 side by side, with a title on the left and a caption under each."""

    title: str
    images: Sequence[np.ndarray]
    captions: Sequence[str]


def plot_rows(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw rows of images as a PNG.

    Args:
      rows: from top to bottom.
      path: of the PNG.
      title: of the figure.
    """
    import matplotlib  # here, so that the start of a run does not wait for it

    with matplotlib.rc_context({"font.family": families()}):
        _figure(rows, title).savefig(path, dpi=100)


def _figure(rows: Sequence[Row], title: str) -> Any:
    from matplotlib.figure import Figure

    columns = max(len(row.images) for row in rows)
    figure = Figure(figsize=(1.2 * columns + 1.2, 1.5 * len(rows) + 0.6), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for row, line in zip(rows, panels, strict=True):
        line[0].text(-0.15, 0.5, plain(row.title), transform=line[0].transAxes, ha="right", va="center", weight="bold")
        for image, caption, panel in zip(row.images, row.captions, line, strict=False):
            panel.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
            panel.set_title(plain(caption), fontsize=8, pad=2)
    figure.suptitle(plain(title))
    return figure
