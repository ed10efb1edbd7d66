"""The charts of a comparison's page; see `mixer_jax.reporting.charts` for their format."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixer_jax.reporting.charts import chart, series
from mixer_jax.studies.rows import Curve, Row

EARLY = 2  # epochs that the accuracy axis need not show
TIME = "training time (min), on the machine used"
AXES = {"epoch": "epoch", "minutes": TIME, "images": "training images seen"}
X: dict[str, Callable[[Curve], Sequence[float]]] = {
    "epoch": lambda curve: range(1, len(curve.val_accuracies) + 1),
    "minutes": lambda curve: [x / 60 for x in curve.seconds],
    "images": lambda curve: curve.images,
}


def curves(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the charts of accuracy and loss on validation: means over seeds, with bands of one standard deviation.

    The rows are of one dataset. If their best epoch was chosen on the test images, accuracy and loss are those on the
    test images.
    """
    charts = []
    split = next((row.protocol for row in rows if row.protocol), "validation").capitalize()
    for field, title in (("val_accuracies", f"{split} accuracy (%)"), ("val_losses", f"{split} loss")):
        views = {}
        for name, x_of in X.items():
            views[name] = lines = [line for color, row in enumerate(rows) for line in _lines(row, field, x_of, color)]
            if field == "val_accuracies" and lines:
                lines += _published(rows, max(line["x"][-1] for line in lines))
        charts.append(chart(title, AXES, views))
    late = (x for row in rows for curve in row.curves for x in curve.val_accuracies[EARLY:] if math.isfinite(x))
    charts[0]["low"] = min(late, default=None)
    return [one for one in charts if one["views"]]


def _lines(row: Row, field: str, x_of: Callable, color: int) -> list[dict[str, Any]]:
    runs = [curve for curve in row.curves if getattr(curve, field) and len(x_of(curve))]
    if not runs:
        return []
    length = min(len(getattr(curve, field)) for curve in runs)
    values = np.array([getattr(curve, field)[:length] for curve in runs])
    x = np.mean([list(x_of(curve))[:length] for curve in runs], axis=0).round(4).tolist()
    mean, dash = values.mean(0), color // 10 % 4
    lines = [series(row.title, x, mean, color, dash=dash)]
    if len(runs) > 1:
        std = values.std(0, ddof=1)
        lines += [series("", x, mean + sign * std, color, band=sign) for sign in (1, -1)]
    return lines


def _published(rows: Sequence[Row], end: float) -> list[dict[str, Any]]:
    return [
        series(
            f"{row.title}, published, on test", [0, end], [row.published[row.against]] * 2, color, dash=4, fixed=True
        )
        for color, row in enumerate(rows)
        if row.published
    ]


def costs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the charts of the test accuracy of the last epoch against parameters and training time.

    The rows are of one dataset. Published accuracies are hollow points, of the best epoch if only that was published.
    """
    sizes, times = [], []
    for color, row in enumerate(rows):
        if not (row.results or row.published):
            continue
        accuracy = float(np.mean(row.accuracies("last") or row.published[row.against]))
        mark = "full" if row.results else "hollow"
        if row.size is not None:
            sizes.append(series(row.title, [row.size], [accuracy], color, mark=mark))
        if row.seconds is not None:
            times.append(series(row.title, [round(row.seconds / 60, 3)], [accuracy], color, mark=mark))
    if len({one["x"][0] for one in sizes}) < 2:
        return []
    charts = [chart("Test accuracy (%) over parameters", {"parameters": "parameters"}, {"parameters": sizes}, log=True)]
    if len(times) > 1:
        charts.append(chart("Test accuracy (%) over training time", AXES, {"minutes": times}, log=True))
    return charts
