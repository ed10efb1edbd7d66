"""The charts of pages, as JSON that `assets/page.js` draws.

A chart has a `title` and one or several `views`, by name, such as "epoch" and "step". A view has the name of its x
axis, `x`, and its `series`. A series has a `label`; the numbers `x` and `y`, where None is a gap; `color` and `dash`,
indices of a colour and a line style; `smooth`, whether smoothing applies; and for points instead of a line `mark`,
"full" or "hollow".
"""

import math
from collections.abc import Sequence
from typing import Any

from mixer_jax.records import Epoch, StepMetrics, best_epoch

CONTROLS = """<form class="controls">
<label><input type="radio" name="by" value="epoch" checked> by epoch</label>
<label><input type="radio" name="by" value="step"{disabled}> by step</label>
<label><input type="checkbox" name="log"> logarithmic</label>
<label>smoothing <input type="range" name="smooth" min="0" max="0.98" step="0.02" value="0"></label>
<span class="muted">Drag over a chart to zoom in; double-click to zoom out.</span></form>"""
# The highest test accuracies that PyTorch projects published for a Mixer trained from scratch; see configs/results.
PUBLISHED = {"cifar10": 90.83, "mnist": 97.79}
TRAIN, VALIDATION, BEST, REFERENCE = 1, 0, 2, 3  # colours


def controls(steps: Sequence[StepMetrics]) -> str:
    """Return the HTML of the controls of a run's charts."""
    return CONTROLS.format(disabled="" if steps else " disabled")


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
            _series("train", epochs, [getattr(one, f"train_{name}") for one in history], TRAIN, dash=1),
            _series("validation", epochs, [getattr(one, f"val_{name}") for one in history], VALIDATION),
            _series("best epoch", [best.epoch], [getattr(best, f"val_{name}")], BEST, mark="full"),
        ]
        of_step = [
            _series("train", numbers, [getattr(one, name) for one in steps], TRAIN, dash=1),
            _series("validation", [one.step for one in history], of_epoch[1]["y"], VALIDATION),
            _series("best epoch", [best.step], of_epoch[2]["y"], BEST, mark="full"),
        ]
        if name == "accuracy" and dataset in PUBLISHED:
            published = [PUBLISHED[dataset]] * 2
            label = "published, on test"
            of_epoch.append(_series(label, [epochs[0], epochs[-1]], published, REFERENCE, dash=2, smooth=False))
            of_step.append(_series(label, [0, history[-1].step], published, REFERENCE, dash=2, smooth=False))
        charts.append(_chart(title, of_epoch, of_step if steps else None))
    others = (
        ("learning_rate", "Learning rate"), ("gradient_norm", "Gradient norm, before clipping"),
        ("images_per_second", "Images per second"),
    )  # fmt: skip
    for name, title in others:
        of_step = [_series(name.replace("_", " "), numbers, [getattr(one, name) for one in steps], VALIDATION)]
        of_epoch = None
        if name != "gradient_norm":
            values = [getattr(one, name) for one in history]
            of_epoch = [_series(name.replace("_", " "), epochs, values, VALIDATION)]
        if of_epoch or steps:
            charts.append(_chart(title, of_epoch, of_step if steps else None))
    return charts


def calibration(bins: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the reliability diagram, accuracy over confidence.

    Args:
      bins: the `calibration` of `metrics.classification_scores`.
    """
    confidence = [one["confidence"] for one in bins]
    series = [
        _series("accuracy (%)", confidence, [one["accuracy"] for one in bins], VALIDATION, mark="full"),
        _series("perfectly calibrated", [0, 100], [0, 100], TRAIN, dash=1),
    ]
    return {"title": "Accuracy over confidence", "range": [0, 105], "views": {"epoch": _view("confidence (%)", series)}}


def _chart(title: str, of_epoch: list | None, of_step: list | None) -> dict[str, Any]:
    views = {}
    if of_epoch:
        views["epoch"] = _view("epoch", of_epoch)
    if of_step:
        views["step"] = _view("step", of_step)
    return {"title": title, "views": views}


def _view(x: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    return {"x": x, "series": series}


def _series(label: str, x: Sequence[float], y: Sequence[float], color: int, **style: Any) -> dict[str, Any]:
    finite = [None if value is None or not math.isfinite(value) else round(value, 6) for value in y]
    return {"label": label, "x": list(x), "y": finite, "color": color, "smooth": True, **style}
