"""The charts of pages, as JSON that `assets/page.js` draws.

A chart has a `title`, one or several `views` by name, such as "epoch" and "step", and possibly a fixed `range` or the
`low` end of its y axis. A view has `x`, the name of its x axis; `log`, whether that axis is logarithmic; and `series`.
A series has a `label`; the numbers `x` and `y`, where None is a gap; `color` and `dash`, indices of a colour and a line
style; `fixed`, whether smoothing leaves it alone; `mark`, "full" or "hollow", for points instead of a line; and `band`,
1 for the upper and -1 for the lower edge of a band.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mixer_jax.records import Epoch, StepMetrics, best_epoch

# The test accuracies at the last epoch that PyTorch projects report for a Mixer from scratch; see configs/results.
PUBLISHED = {"cifar10": 90.83, "mnist": 97.79}
TRAIN, VALIDATION, BEST, REFERENCE = 1, 0, 2, 3  # colours
AXES = {"epoch": "epoch", "minutes": "training time (min)", "step": "step"}  # of the views of a run


def controls(views: Iterable[str], names: bool = False) -> str:
    """Return the HTML of the controls of charts; with `names`, the curves can be chosen by their names."""
    radios = "".join(
        f'<label><input type="radio" name="by" value="{name}"{"" if i else " checked"}> by {name}</label>'
        for i, name in enumerate(views)
    )
    chosen = '<label>only <input type="search" name="only" placeholder="part of a name"></label>' if names else ""
    return (
        f'<form class="controls">{radios}<label><input type="checkbox" name="log"> logarithmic</label>'
        '<label>smoothing <input type="range" name="smooth" min="0" max="0.98" step="0.02" value="0"><output>0</output>'
        f"</label>{chosen}"
        '<span class="muted">Drag over a chart, or press + and -, to zoom; double-click or Escape shows all.</span>'
        "</form>"
    )


def curves(history: Sequence[Epoch], steps: Sequence[StepMetrics], dataset: str) -> list[dict[str, Any]]:
    """Return the charts of a run: loss, accuracy, learning rate, gradient norm and throughput.

    `steps` is empty for a run of an older release. `dataset` is the name by which the published accuracy is looked up.
    """
    minutes = np.cumsum([one.seconds / 60 for one in history])
    ends = {
        "epoch": [one.epoch for one in history],
        "minutes": minutes.round(4).tolist(),
        "step": [one.step for one in history],
    }
    # On the other axes, single steps are placed between the ends of epochs.
    done = [one for one in steps if one.step <= history[-1].step]
    placed = {"epoch": done, "minutes": done, "step": steps}
    within = {
        view: np.interp([one.step for one in done], [0, *ends["step"]], [0, *ends[view]]).round(4).tolist()
        for view in ("epoch", "minutes")
    } | {"step": [one.step for one in steps]}
    best = history.index(best_epoch(history))
    charts = []
    for name, title in (("loss", "Loss"), ("accuracy", "Accuracy (%)")):
        train, validation = ([getattr(one, f"{split}_{name}") for one in history] for split in ("train", "val"))
        views = {}
        for view, x in ends.items():
            single = view == "step" and steps
            of_train = (within[view], [getattr(one, name) for one in steps]) if single else (x, train)
            lines = [
                series("train", *of_train, TRAIN, dash=1),
                series("validation", x, validation, VALIDATION),
                series("best epoch", [x[best]], [validation[best]], BEST, mark="full"),
            ]
            if name == "accuracy" and dataset in PUBLISHED:
                published = [PUBLISHED[dataset]] * 2
                lines.append(series("published, on test", [x[0], x[-1]], published, REFERENCE, dash=2, fixed=True))
            views[view] = lines
        charts.append(chart(title, AXES, views))
    for name, title in (
        ("learning_rate", "Learning rate"),
        ("gradient_norm", "Gradient norm, before clipping"),
        ("images_per_second", "Images per second"),
    ):
        if name == "gradient_norm" and not steps:
            continue
        label, fixed, views = name.replace("_", " "), name == "learning_rate", {}
        for view, x in ends.items():
            if steps and (view == "step" or name == "gradient_norm"):
                line = (within[view], [getattr(one, name) for one in placed[view]])
            else:
                line = (x, [getattr(one, name) for one in history])
            views[view] = [series(label, *line, VALIDATION, fixed=fixed)]
        charts.append(chart(title, AXES, views))
    return charts


def calibration(bins: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the reliability diagram (accuracy over confidence) of the `calibration` in `classification_scores`."""
    confidence = [one["confidence"] for one in bins]
    lines = [
        series("accuracy (%)", confidence, [one["accuracy"] for one in bins], VALIDATION, mark="full"),
        series("perfectly calibrated", [0, *confidence, 100], [0, *confidence, 100], TRAIN, dash=1),
    ]
    return chart("Accuracy over confidence", {"confidence": "confidence (%)"}, {"confidence": lines}) | {
        "range": [0, 105]
    }


def chart(
    title: str, axes: Mapping[str, str], views: Mapping[str, list[dict[str, Any]]], log: bool = False
) -> dict[str, Any]:
    """Return a chart, with the label of the x axis and the series of each view; views without series are left out.

    With `log`, the x axes are logarithmic.
    """
    shown = {name: {"x": axes[name], "series": lines, "log": log} for name, lines in views.items() if lines}
    return {"title": title, "views": shown}


def series(label: str, x: Sequence[float], y: Sequence[float | None], color: int, **style: Any) -> dict[str, Any]:
    """Return a series; None and values that are not finite are gaps."""
    points = [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in y]
    return {
        "label": label,
        "x": [one if math.isfinite(one) else None for one in x],
        "y": points,
        "color": color,
        **style,
    }
