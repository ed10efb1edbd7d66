"""The scores of a model for people to read: a few lines of text, and the confusion matrix as CSV and PNG."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.utils import disp_len

from mixer_jax.metrics import CALIBRATION_BINS, TOP, accuracy_interval, hardest_first
from mixer_jax.reporting.text import families, labels, plain

CLASS_COLUMNS = ("class", "images", "recall", "precision", "F1", "most often taken for")
SHOWN, WIDEST = 20, 40  # classes that are listed on the console, and columns for their names


def describe(scores: dict[str, Any]) -> str:
    """Return scores as a few lines of text, with the hardest classes.

    Args:
      scores: from `metrics.classification_scores`.
    """
    top = f", {scores['top5_accuracy']:.2f}% top-{TOP}" if len(scores["per_class"]) > TOP else ""
    lines = {
        "accuracy": f"{scores['accuracy']:.2f}% top-1{top}; {scores['balanced_accuracy']:.2f}% balanced",
        "loss": f"{scores['loss']:.4f}",
        "calibration": f"{scores['calibration_error']:.2f}% expected error ({CALIBRATION_BINS} bins)",
    }
    text = [f"  {name:15} {line}" for name, line in lines.items()]
    rows = class_rows(scores)
    names = [f"the {SHOWN} hardest of {len(rows)} classes" if len(rows) > SHOWN else "class"]
    names += [row[0] for row in rows[:SHOWN]]
    width = min(max(map(disp_len, names)), WIDEST)
    for name, cells in zip(names, [CLASS_COLUMNS, *rows[:SHOWN]], strict=True):
        of_class = "".join(f"{cell:>10}" for cell in cells[1:5])
        text.append(f"  {name}{' ' * (width - disp_len(name))}{of_class}  {cells[5]}".rstrip())
    return "\n".join(text)


def class_rows(scores: dict[str, Any], intervals: bool = False) -> list[tuple[str, ...]]:
    """Return a row of text per class with examples; its cells are those of `CLASS_COLUMNS`.

    The hardest classes come first, as in `metrics.hardest_first`.

    Args:
      scores: from `metrics.classification_scores`.
      intervals: whether the recall is followed by its 95% interval.
    """

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}%"

    classes, confusion = list(scores["per_class"].items()), np.array(scores["confusion"])
    rows = []
    for i in hardest_first(confusion.diagonal(), confusion.sum(1)):
        name, row = classes[i]
        recall, *others = (percent(row[key]) for key in ("accuracy", "precision", "f1"))
        if intervals:
            low, high = accuracy_interval(row["accuracy"], row["count"])
            recall += f" ({low:.0f} to {high:.0f})"
        rows.append((name, f"{row['count']:,}", recall, *others, row["confused_with"] or ""))
    return rows


def write_classes(scores: dict[str, Any], path: Path) -> None:
    """Write the scores of every class as CSV, in the order of the classes.

    Args:
      scores: from `metrics.classification_scores`.
      path: of the file.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CLASS_COLUMNS)
        for name, row in scores["per_class"].items():
            numbers = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("accuracy", "precision", "f1")]
            writer.writerow([name, row["count"], *numbers, row["confused_with"] or ""])


def write_confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str], path: Path) -> None:
    """Write a confusion matrix as CSV.

    Args:
      confusion: counts, with a row per true class and a column per predicted class.
      label_names: of the classes.
      path: of the file.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true / predicted", *label_names])
        writer.writerows([name, *row] for name, row in zip(label_names, confusion, strict=True))


def plot_confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str], path: Path, title: str) -> None:
    """Draw a confusion matrix as a PNG, coloured by the fraction of each true class.

    A class with a name that no installed font can show is labelled by its number, from 1.

    Args:
      confusion: counts, with a row per true class and a column per predicted class.
      label_names: of the classes.
      path: of the PNG.
      title: of the figure.
    """
    import matplotlib  # here, because it is slow to import

    with matplotlib.rc_context({"font.family": families()}):
        _confusion_figure(np.array(confusion), label_names, title).savefig(path, dpi=110)


def _confusion_figure(counts: np.ndarray, label_names: Sequence[str], title: str) -> Any:
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    n, few = len(label_names), len(label_names) <= 20
    side = 3 + 0.45 * min(n, 30)
    figure = Figure(figsize=(side + (not few), side), layout="constrained")
    panel = figure.subplots()
    drawn = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if not few:  # with few classes, the cells show their counts
        figure.colorbar(drawn, ax=panel, label="share of the true class", shrink=0.8)
    panel.set(xlabel="predicted", ylabel="true", title=plain(title))
    if n <= 100:
        size = 9 if few else max(3, 240 // n)
        names = labels(label_names)
        panel.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=size)
        panel.set_yticks(range(n), names, fontsize=size)
    for row, column in np.argwhere(counts) if few else ():
        color = "white" if shares[row, column] > 0.5 else "black"
        number = panel.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=color)
        number.set_in_layout(False)  # the layout would measure every number
    return figure
