"""Plots of loss, accuracy and learning rate over epochs, and of this package's and PyTorch's losses over steps."""

import contextlib
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.records import Epoch, best_epoch
from mixer_jax.reporting.observer import Observer
from mixer_jax.reporting.text import fonts, plain
from mixer_jax.storage import replacing

FIRST_DRAWING = 0.5  # seconds, a guess for the first time
DRAWING_SHARE = 0.05  # the largest fraction of the time to spend on drawing
DOTS = 110  # per inch
NOTEBOOK_WIDTH = 900  # pixels
WIDTH, HEIGHT, TITLE = 4.4, 3.6, 0.3  # width and height of a panel and height of the title, in inches


@fonts()
def plot_curves(histories: Sequence[Sequence[Epoch]], path: Path, title: str = "") -> None:
    """Plot the metrics of one or several runs as a PNG of three panels: loss, accuracy and learning rate.

    The best epoch of each run is marked.
    """
    from matplotlib.figure import Figure  # here, so that the start of a run does not wait for it

    bests = [best_epoch(history) for history in histories]
    # Figure instead of pyplot needs no display and has no global state.
    size = 3 * WIDTH, HEIGHT + TITLE
    figure = Figure(figsize=size)
    # Fixed margins in inches, because computing a layout takes as long as all the drawing.
    left, bottom, width, height = 0.6, 0.5, WIDTH - 0.75, HEIGHT - 0.95
    loss, accuracy, rate = (
        figure.add_axes(np.array([i * WIDTH + left, bottom, width, height]) / (*size, *size)) for i in range(3)
    )
    for i, (history, best) in enumerate(zip(histories, bests, strict=True)):
        epochs = [record.epoch for record in history]
        style = {"marker": "o" if len(epochs) < 3 else None, "alpha": 1.0 if len(histories) == 1 else 0.6}
        for panel, key in ((loss, "loss"), (accuracy, "accuracy")):
            names = {"train": "train", "val": "validation", "best": _marked(bests, f"val_{key}")} if i == 0 else {}
            for split, color, line in (("train", "tab:gray", "--"), ("val", "tab:blue", "-")):
                values = [getattr(record, f"{split}_{key}") for record in history]
                panel.plot(epochs, values, line, color=color, label=names.get(split), **style)
            panel.plot(best.epoch, getattr(best, f"val_{key}"), "o", color="tab:orange", label=names.get("best"))
        rate.plot(epochs, [record.learning_rate for record in history], color="tab:green", **style)
    for panel, name in ((loss, "loss"), (accuracy, "accuracy (%)"), (rate, "learning rate at the end of the epoch")):
        panel.set_title(name)
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
        if panel is not rate:
            panel.legend(frameon=False)
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=DOTS)


class LiveCurves:
    """A plot of the curves of a run in training, or of several seeds, updated after each epoch.

    After short epochs, it skips updates so that drawing takes at most a fraction DRAWING_SHARE of the time. In a
    notebook, the plot also appears below the cell and changes in place.
    """

    def __init__(self, path: Path, title: str):
        self._path, self._title = path, title
        self._histories: list[list[Epoch]] = []
        self._took, self._drawn = FIRST_DRAWING, time.monotonic()
        self._in_notebook: Any = None

    def observer(self) -> Observer:
        """Return a new observer, for a run or for the next of several seeds."""
        self._histories.append([])
        return _Curve(self, self._histories[-1])

    def update(self) -> None:
        """Draw the curves, unless drawing would take more than a fraction DRAWING_SHARE of the time."""
        start = time.monotonic()
        if (start - self._drawn) * DRAWING_SHARE < self._took:
            return
        with contextlib.suppress(UserError, OSError):  # a failed plot must not stop the training
            with replacing(self._path) as partial:
                plot_curves([history for history in self._histories if history], partial, self._title)
            self._show()
        self._drawn = time.monotonic()
        self._took = self._drawn - start

    def _show(self) -> None:
        """Show the plot in the notebook, if this runs in one."""
        ipython = sys.modules.get("IPython")  # a notebook has imported it
        if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
            return
        image = ipython.display.Image(data=self._path.read_bytes(), width=NOTEBOOK_WIDTH)
        if self._in_notebook is None:
            self._in_notebook = ipython.display.display(image, display_id=True)
        else:
            self._in_notebook.update(image)


class _Curve(Observer):
    """An observer that passes the events of one run to a `LiveCurves`."""

    def __init__(self, curves: LiveCurves, history: list[Epoch]):
        self._curves, self._history = curves, history

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        self._history[:] = history

    def epoch(self, record: Epoch, best: Epoch) -> None:
        self._history.append(record)
        self._curves.update()


@fonts()
def plot_trajectories(report: dict[str, Any], path: Path) -> None:
    """Plot parity.json as a PNG: this package's and PyTorch's losses, and below them their relative differences."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    panels = figure.subplots(
        2, len(report["optimizers"]), sharex=True, sharey="row", height_ratios=(2, 1), squeeze=False
    )
    for (loss, apart), (name, both) in zip(panels.T, report["optimizers"].items(), strict=True):
        loss.plot(both["torch"], color="tab:orange", linewidth=4, alpha=0.5, label="PyTorch")
        loss.plot(both["ours"], color="tab:blue", linewidth=1, label="mixer_jax")
        loss.set_title(f"{name}, learning rate {both['learning_rate']:g}")
        loss.legend(frameon=False)
        difference = [abs(a - b) / b for a, b in zip(both["ours"], both["torch"], strict=True)]
        apart.semilogy(difference, ".", color="tab:gray", markersize=3)
        apart.set_xlabel("step")
        for panel in (loss, apart):
            panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("training loss")
    panels[1, 0].set_ylabel("relative difference")
    figure.suptitle(f"{plain(report['config'])}: the same weights and batches, {report['steps']} steps")
    figure.savefig(path, dpi=110)


def _marked(bests: Sequence[Epoch], key: str) -> str:
    values = [getattr(best, key) for best in bests]
    if len(values) == 1:
        return f"best epoch {bests[0].epoch}: {values[0]:.4g}"
    return f"best epochs: {statistics.fmean(values):.4g} \u00b1 {statistics.stdev(values):.2g}"
