"""The charts of a comparison's page; see `mixer_jax.reporting.charts` for their form."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixer_jax.reporting.charts import chart, series
from mixer_jax.studies.rows import Curve, Row

VIEWS = (("epoch", "epoch"), ("minutes", "minutes"), ("images", "images seen"))
EARLY = 2  # epochs that the accuracy axis need not show
X_AXES: dict[str, tuple[str, Callable[[Curve], Sequence[float]]]] = {
    "epoch": ("epoch", lambda curve: range(1, len(curve.accuracies) + 1)),
    "minutes": ("training time (min), on the machine used", lambda curve: [x / 60 for x in curve.seconds]),
    "images": ("training images seen", lambda curve: curve.images),
}


def curves(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the charts of accuracy and loss on validation: means over seeds, with bands of one standard deviation.

    If the best epoch was chosen on the test images, accuracy and loss are those on the test images.

    Args:
      rows: of one dataset, with one way to choose the best epoch.
    """
    charts = []
    split = next((row.protocol for row in rows if row.protocol), "validation").capitalize()
    for field, title in (("accuracies", f"{split} accuracy (%)"), ("losses", f"{split} loss")):
        views = {}
        for name, (label, x_of) in X_AXES.items():
            lines = []
            for color, row in enumerate(rows):
                lines += _lines(row, field, x_of, color)
            if field == "accuracies" and lines:
                lines += _published(rows, max(line["x"][-1] for line in lines))
            if lines:
                views[name] = label, lines
        if views:
            low = min((one for row in rows for curve in row.curves for one in curve.accuracies[EARLY:]), default=None)
            charts.append(chart(title, views) | ({"low": low} if field == "accuracies" else {}))
    return charts


def _lines(row: Row, field: str, x_of: Callable, color: int) -> list[dict[str, Any]]:
    runs = [curve for curve in row.curves if getattr(curve, field) and len(x_of(curve))]
    if not runs:
        return []
    length = min(len(getattr(curve, field)) for curve in runs)
    values = np.array([getattr(curve, field)[:length] for curve in runs])
    x = np.mean([list(x_of(curve))[:length] for curve in runs], axis=0).round(4).tolist()
    mean, dash = values.mean(0), color // 10
    lines = [series(row.title, x, mean, color, dash=dash)]
    if len(runs) > 1:
        std = values.std(0, ddof=1)
        lines += [series("", x, mean + sign * std, color, band=sign) for sign in (1, -1)]
    return lines


def _published(rows: Sequence[Row], end: float) -> list[dict[str, Any]]:
    return [
        series(
            f"{row.title}, published, on test", [0, end], [row.published[row.against]] * 2, color, dash=2, fixed=True
        )
        for color, row in enumerate(rows)
        if row.published
    ]


def costs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the charts of the test accuracy of the last epoch against parameters and training time.

    Args:
      rows: of one dataset. Those of which only a published accuracy is known are hollow points.
    """
    sizes, times = [], []
    for color, row in enumerate(rows):
        if row.results:
            accuracy = float(np.mean(row.accuracies("last")))
            sizes.append(series(row.title, [row.results[0].num_params], [accuracy], color, mark="full"))
            times.append(series(row.title, [round(row.seconds / 60, 3)], [accuracy], color, mark="full"))
        elif row.published and row.num_params:
            sizes.append(series(row.title, [row.num_params], [row.published[row.against]], color, mark="hollow"))
    if len(sizes) < 2:
        return []
    charts = [chart("Test accuracy (%) over parameters", {"parameters": ("parameters", sizes)}, log=True)]
    if len(times) > 1:
        label = "training time (min), on the machine used"
        charts.append(chart("Test accuracy (%) over training time", {"minutes": (label, times)}, log=True))
    return charts
