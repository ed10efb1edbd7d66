"""Plots of runs and published numbers for papers: learning curves, and accuracy against cost."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.reporting.text import fonts, plain
from mixer_jax.studies.rows import Row, datasets

SEVERAL = 8  # with more rows than this, the curves of single seeds are omitted
WIDTH, HEIGHT = 8.0, 5.6  # of a panel, in inches


@fonts()
def plot_curves(rows: Sequence[Row], path: Path, title: str) -> bool:
    """Plot the validation accuracy over the epochs as a PNG: means over seeds, with bands of one standard deviation.

    There is a panel for each dataset and each way to choose the best epoch. Published test accuracies are dotted lines.
    If there are more than SEVERAL rows, those with a single seed are omitted, unless all have a single seed.

    Return whether there was anything to plot; if not, no file is written.
    """
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row.curves and all(curve.val_accuracies for curve in row.curves)]
    if len(drawn) > SEVERAL:
        drawn = [row for row in drawn if len(row.curves) > 1] or drawn
    kinds = list(dict.fromkeys((row.dataset, row.protocol) for row in drawn))
    if not drawn:
        return False
    figure = Figure(figsize=(WIDTH * len(kinds), HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    numbers, lines = {}, {}
    for panel, (dataset, protocol) in zip(panels, kinds, strict=True):
        of_title = Counter()  # two rows with the same title are two lines
        lowest, highest = 100.0, 0.0
        for row in (row for row in drawn if (row.dataset, row.protocol) == (dataset, protocol)):
            key = row.title, of_title[row.title]
            of_title[row.title] += 1
            i = numbers.setdefault(key, len(numbers))
            epochs = min(len(curve.val_accuracies) for curve in row.curves)
            values = np.array([curve.val_accuracies[:epochs] for curve in row.curves])
            x, mean = np.arange(1, epochs + 1), values.mean(0)
            style = {"color": f"C{i % 10}", "linestyle": ("-", "--", "-.")[i // 10 % 3]}
            [lines[key]] = panel.plot(x, mean, marker="o" if epochs < 30 else None, markersize=3, **style)
            if len(values) > 1:
                std = values.std(0, ddof=1)
                panel.fill_between(x, mean - std, mean + std, color=style["color"], alpha=0.15, linewidth=0)
            lowest, highest = min(lowest, mean[min(1, epochs - 1) :].min()), max(highest, values.max())
        for row in rows:
            if row.dataset == dataset and row.published and (row in drawn or not row.results):
                i = numbers.setdefault((row.title, 0), len(numbers))
                accuracy = row.published[row.against]
                dotted = panel.axhline(accuracy, color=f"C{i % 10}", linestyle=":", linewidth=1)
                lines.setdefault((row.title, 0), dotted)
                lowest, highest = min(lowest, accuracy), max(highest, accuracy)
        margin = 0.05 * (highest - lowest) + 0.1
        panel.set(title=f"{dataset}: best epoch chosen on {protocol}", xlabel="epoch")
        panel.set(ylabel=f"{protocol} accuracy (%)", ylim=(lowest - margin, min(highest + margin, 100.0)))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
    figure.suptitle(plain(title))
    _name(figure, list(lines.values()), [title for title, _ in lines])
    figure.savefig(path, dpi=110)
    return True


@fonts()
def plot_costs(rows: Sequence[Row], path: Path, title: str) -> bool:
    """Plot the test accuracy of the last epoch against the number of parameters and the training time, as a PNG.

    There are two panels for each dataset with models of at least two sizes. Points are means over seeds, with error
    bars of one standard deviation, at the training time of the fastest seed. Published numbers are hollow points, of
    the best epoch if only that was published. A row without a known cost is missing from that cost's panel.

    Return whether there was anything to plot; if not, no file is written.
    """
    from matplotlib import ticker
    from matplotlib.figure import Figure

    sections = []
    for dataset in datasets(rows):
        known = [row for row in rows if row.dataset == dataset and (row.size or row.seconds)]
        trained = [row for row in known if row.results]
        published = [row for row in known if row.published and not row.results]
        if trained and len({row.size for row in trained + published} - {None}) > 1:
            sections.append((dataset, trained + published))
    if not sections:
        return False
    figure = Figure(figsize=(13, HEIGHT * len(sections)), layout="constrained")
    handles: dict[str, Any] = {}
    grid = figure.subplots(len(sections), 2, squeeze=False, sharey="row")
    for panels, (dataset, shown) in zip(grid, sections, strict=True):
        for row in shown:
            i = list(handles).index(row.title) if row.title in handles else len(handles)
            style = {"color": f"C{i % 10}", "marker": "osD^v"[i // 10 % 5], "linestyle": "none", "capsize": 3}
            style |= {} if row.results else {"markerfacecolor": "none"}
            values = row.accuracies("last") or [row.published[row.against]]
            bar = np.std(values, ddof=1) if len(values) > 1 else None
            for panel, cost in zip(panels, (row.size, row.seconds and row.seconds / 60), strict=True):
                if cost is not None:
                    handles[row.title] = panel.errorbar(cost, np.mean(values), bar, **style)
        for panel, label in zip(panels, ("parameters", "training time (min), on the machine used"), strict=True):
            panel.set(xscale="log", xlabel=label)
            low, high = panel.get_xlim()
            steps = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5) if high < 100 * low else (1,)
            # matplotlib's LogLocator falls back to linear ticks in less than a decade, and their labels overlap.
            panel.xaxis.set_major_locator(ticker.FixedLocator([s * 10.0**k for k in range(-4, 13) for s in steps]))
            panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,.10g}"))
            panel.xaxis.set_minor_formatter(ticker.NullFormatter())
            panel.grid(alpha=0.3)
        panels[0].set(ylabel=f"{dataset}: test accuracy, last epoch (%)")
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
