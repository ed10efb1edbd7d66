"""The charts of pages, as JSON that `assets/page.js` draws.

A chart has a `title`, one or several `views` by name, such as "epoch" and "step", and possibly a fixed `range` or the
`low` end of its y axis. A view has the name of its x axis, `x`; whether that is logarithmic, `log`; and its `series`. A
series has a `label`; the numbers `x` and `y`, where None is a gap; `color` and `dash`, indices of a colour and a line
style; `fixed`, whether smoothing leaves it alone; `mark`, "full" or "hollow", for points instead of a line; and `band`,
1 for the upper and -1 for the lower edge of a band.
"""

import math
from collections.abc import Sequence
from typing import Any

from mixer_jax.records import Epoch, StepMetrics, best_epoch

# The highest test accuracies that PyTorch projects published for a Mixer trained from scratch; see configs/results.
PUBLISHED = {"cifar10": 90.83, "mnist": 97.79}
TRAIN, VALIDATION, BEST, REFERENCE = 1, 0, 2, 3  # colours


def controls(views: Sequence[tuple[str, str]]) -> str:
    """Return the HTML of the controls of charts.

    Args:
      views: names of views and what they are called, the first one being shown first.
    """
    radios = "".join(
        f'<label><input type="radio" name="by" value="{name}"{"" if i else " checked"}> by {called}</label>'
        for i, (name, called) in enumerate(views)
        if len(views) > 1
    )
    return (
        f'<form class="controls">{radios}<label><input type="checkbox" name="log"> logarithmic</label>'
        '<label>smoothing <input type="range" name="smooth" min="0" max="0.98" step="0.02" value="0"><output>0</output>'
        "</label>"
        '<span class="muted">Drag over a chart to zoom in; double-click to zoom out.</span></form>'
    )


def curves(history: Sequence[Epoch], steps: Sequence[StepMetrics], dataset: str) -> list[dict[str, Any]]:
    """Return the charts of a run: loss, accuracy, learning rate, gradient norm and throughput.

    Args:
      history: the epochs.
      steps: single steps; empty for a run of an older release.
      dataset: the name of the dataset, for the published accuracy.
    """
    best = best_epoch(history)
    epochs, numbers = [one.epoch for one in history], [one.step for one in steps]
    charts = []
    for name, title in (("loss", "Loss"), ("accuracy", "Accuracy (%)")):
        of_epoch = [
            series("train", epochs, [getattr(one, f"train_{name}") for one in history], TRAIN, dash=1),
            series("validation", epochs, [getattr(one, f"val_{name}") for one in history], VALIDATION),
            series("best epoch", [best.epoch], [getattr(best, f"val_{name}")], BEST, mark="full"),
        ]
        of_step = [
            series("train", numbers, [getattr(one, name) for one in steps], TRAIN, dash=1),
            series("validation", [one.step for one in history], of_epoch[1]["y"], VALIDATION),
            series("best epoch", [best.step], of_epoch[2]["y"], BEST, mark="full"),
        ]
        if name == "accuracy" and dataset in PUBLISHED:
            published = [PUBLISHED[dataset]] * 2
            label = "published, on test"
            of_epoch.append(series(label, [epochs[0], epochs[-1]], published, REFERENCE, dash=2, fixed=True))
            of_step.append(series(label, [0, history[-1].step], published, REFERENCE, dash=2, fixed=True))
        charts.append(chart(title, {"epoch": ("epoch", of_epoch), "step": ("step", of_step if steps else [])}))
    others = (
        ("learning_rate", "Learning rate"), ("gradient_norm", "Gradient norm, before clipping"),
        ("images_per_second", "Images per second"),
    )  # fmt: skip
    for name, title in others:
        label, of_epoch, fixed = name.replace("_", " "), [], name == "learning_rate"
        if name != "gradient_norm":
            of_epoch = [series(label, epochs, [getattr(one, name) for one in history], VALIDATION, fixed=fixed)]
        of_step = (
            [series(label, numbers, [getattr(one, name) for one in steps], VALIDATION, fixed=fixed)] if steps else []
        )
        if of_epoch or of_step:
            charts.append(chart(title, {"epoch": ("epoch", of_epoch), "step": ("step", of_step)}))
    return charts


def calibration(bins: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the reliability diagram, accuracy over confidence.

    Args:
      bins: the `calibration` of `metrics.classification_scores`.
    """
    confidence = [one["confidence"] for one in bins]
    lines = [
        series("accuracy (%)", confidence, [one["accuracy"] for one in bins], VALIDATION, mark="full"),
        series("perfectly calibrated", [0, *confidence, 100], [0, *confidence, 100], TRAIN, dash=1),
    ]
    return chart("Accuracy over confidence", {"confidence": ("confidence (%)", lines)}) | {"range": [0, 105]}


def chart(title: str, views: dict[str, tuple[str, list[dict[str, Any]]]], log: bool = False) -> dict[str, Any]:
    """Return a chart.

    Args:
      title: of the chart.
      views: the label of the x axis and the series, by the name of the view; views without series are left out.
      log: whether the x axis is logarithmic.
    """
    shown = {name: {"x": x, "series": lines, "log": log} for name, (x, lines) in views.items() if lines}
    return {"title": title, "views": shown}


def series(label: str, x: Sequence[float], y: Sequence[float | None], color: int, **style: Any) -> dict[str, Any]:
    """Return a series; None and values that are not finite are gaps."""
    finite = [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in y]
    return {"label": label, "x": list(x), "y": finite, "color": color, **style}
