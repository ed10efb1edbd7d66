"""Plots of runs and published numbers: learning curves, and accuracy against cost."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.reporting.text import plain
from mixer_jax.studies.rows import Row

SEVERAL = 8  # with more rows than this, the curves of single seeds are omitted


def plot_curves(rows: Sequence[Row], path: Path, title: str) -> bool:
    """Plot the validation accuracy over the epochs as a PNG: means over seeds, with bands of one standard deviation.

    With more than SEVERAL rows, those of a single seed are omitted, unless all have a single seed.

    Args:
      rows: of the comparison.
      path: of the PNG.
      title: of the figure.

    Returns:
      Whether there was anything to plot; if not, no file is written.
    """
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row.curves and all(row.curves)]
    if len(drawn) > SEVERAL:
        drawn = [row for row in drawn if len(row.curves) > 1] or drawn
    protocols = list(dict.fromkeys(row.protocol for row in drawn))
    if not drawn:
        return False
    figure = Figure(figsize=(8 * len(protocols), 5.6), layout="constrained")
    panels = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    lowest, highest, numbers, lines = 100.0, 0.0, {}, {}
    for panel, protocol in zip(panels, protocols, strict=True):
        of_title = Counter()  # two rows with the same title are two lines
        for row in (row for row in drawn if row.protocol == protocol):
            key = row.title, of_title[row.title]
            of_title[row.title] += 1
            i = numbers.setdefault(key, len(numbers))
            epochs = min(map(len, row.curves))
            values = np.array([curve[:epochs] for curve in row.curves])
            x, mean = np.arange(1, epochs + 1), values.mean(0)
            style = {"color": f"C{i % 10}", "linestyle": ("-", "--", ":")[i // 10 % 3]}
            [lines[key]] = panel.plot(x, mean, marker="o", markersize=3, **style)
            if len(values) > 1:
                std = values.std(0, ddof=1)
                panel.fill_between(x, mean - std, mean + std, color=style["color"], alpha=0.15, linewidth=0)
            lowest, highest = min(lowest, mean[min(1, epochs - 1) :].min()), max(highest, values.max())
        panel.set(title=f"best epoch chosen on {protocol}", xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
    margin = 0.05 * (highest - lowest) + 0.1
    panels[0].set(ylabel="accuracy on the selection split (%)", ylim=(lowest - margin, min(highest + margin, 100.0)))
    figure.suptitle(plain(title))
    _name(figure, list(lines.values()), [title for title, _ in lines])
    figure.savefig(path, dpi=110)
    return True


def plot_costs(rows: Sequence[Row], path: Path, title: str) -> bool:
    """Plot the test accuracy of the last epoch against the number of parameters and the training time, as a PNG.

    Points are means over seeds, with error bars of one standard deviation, at the training time of the fastest seed.
    Published numbers, whose training time is not known, are hollow points.

    Args:
      rows: of the comparison.
      path: of the PNG.
      title: of the figure.

    Returns:
      Whether there were models of at least two sizes to plot; if not, no file is written.
    """
    from matplotlib import ticker
    from matplotlib.figure import Figure

    trained = [row for row in rows if row.results]
    published = [row for row in rows if not row.results and row.num_params]
    sizes = {row.results[0].num_params for row in trained} | {row.num_params for row in published}
    if not trained or len(sizes) < 2:
        return False
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    panels, handles = figure.subplots(1, 2, sharey=True), {}
    for row in trained + published:
        i = list(handles).index(row.title) if row.title in handles else len(handles)
        style = {"color": f"C{i % 10}", "marker": "osD^v"[i // 10 % 5], "linestyle": "none"}
        if not row.results:
            drawn = panels[0].errorbar(row.num_params, row.published[row.against], markerfacecolor="none", **style)
        else:
            values = row.accuracies("last")
            bar = np.std(values, ddof=1) if len(values) > 1 else None
            panels[1].errorbar(row.seconds / 60, np.mean(values), bar, capsize=3, **style)
            drawn = panels[0].errorbar(row.results[0].num_params, np.mean(values), bar, capsize=3, **style)
        handles.setdefault(row.title, drawn)
    for panel, label in zip(panels, ("parameters", "training time (min), on the machine used"), strict=True):
        panel.set(xscale="log", xlabel=label)
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,.10g}"))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="test accuracy, last epoch (%)")
    figure.suptitle(plain(title))
    _name(figure, list(handles.values()), list(handles))
    figure.savefig(path, dpi=110)
    return True


def _name(figure: Any, handles: Sequence[Any], titles: Sequence[str]) -> None:
    """Add a legend below the panels, with as many columns as fit, at most three."""
    columns = int(15 * figure.get_figwidth() / (max(map(len, titles)) + 8))  # about 15 letters per inch
    columns = min(max(columns, 1), 3)
    figure.legend(
        handles, list(map(plain, titles)), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
