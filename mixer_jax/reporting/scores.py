"""The scores of a model for people to read: lines for the console, tables as CSV, and the confusion matrix as a PNG.

A confusion matrix is (classes, classes) int, with a row for each true class and a column for each predicted one.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.utils import disp_len

from mixer_jax.metrics import CALIBRATION_BINS, TOP, accuracy_interval, hardest_first, probabilities
from mixer_jax.reporting.text import fonts, labels, plain

CLASS_COLUMNS = ("class", "images", "recall", "precision", "F1", "most often taken for")
IMAGE_COLUMNS = ("image", "class", "predicted", "probability", "probability_of_class")
SHOWN, WIDEST = 20, 40  # classes that are listed on the console, and columns for their names
PAIRS = 20  # of confused classes to list


def describe(scores: dict[str, Any]) -> str:
    """Return `metrics.classification_scores` as a few lines of text, with the hardest classes."""
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
    """Return a row of text, with the cells of `CLASS_COLUMNS`, for each class that has examples.

    The hardest classes come first, as in `metrics.hardest_first`. With `intervals`, the recall is followed by its 95%
    interval.
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
    """Write the scores of each class (see `metrics.classification_scores`) as CSV, in the order of the classes."""
    rows = [CLASS_COLUMNS]
    for name, row in scores["per_class"].items():
        numbers = ("" if row[key] is None else f"{row[key]:.4f}" for key in ("accuracy", "precision", "f1"))
        rows.append((name, row["count"], *numbers, row["confused_with"] or ""))
    _write_csv(path, rows)


def write_confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str], path: Path) -> None:
    """Write a confusion matrix as CSV."""
    rows = ((name, *row) for name, row in zip(label_names, confusion, strict=True))
    _write_csv(path, [("true / predicted", *label_names), *rows])


def write_predictions(
    path: Path, names: Sequence[str], logits: np.ndarray, labels: np.ndarray, label_names: Sequence[str]
) -> None:
    """Write a CSV row for each image, beginning with the most confident mistakes, which can reveal wrong labels.

    Args:
      path: the file to write.
      names: the names of the n images.
      logits: (n, classes) float.
      labels: (n,) int, the true classes.
      label_names: the class names.
    """
    of_class, predicted = probabilities(logits), logits.argmax(1)
    confidence, right = of_class.max(1), predicted == labels
    rows = [IMAGE_COLUMNS]
    for i in np.lexsort((np.where(right, 0, -confidence), right)):
        numbers = (f"{x:.6g}" for x in (confidence[i], of_class[i, labels[i]]))
        rows.append((names[i], label_names[labels[i]], label_names[predicted[i]], *numbers))
    _write_csv(path, rows)


def _write_csv(path: Path, rows: Iterable[Sequence]) -> None:
    # Undecodable bytes in the name of a file are written as they are.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)


def similarity_order(counts: np.ndarray) -> np.ndarray:
    """Return the classes in an order that places classes close together if they are confused with each other.

    The classes are clustered hierarchically by average linkage. The distance between two classes is 1 minus the mean of
    two fractions: the fraction of the first class's images that are predicted as the second class, and vice versa. For
    up to 300 classes, the leaves of the tree are in optimal order.
    """
    if len(counts) < 3:
        return np.arange(len(counts))
    from scipy.cluster.hierarchy import leaves_list, linkage  # here, because they are slow to import
    from scipy.spatial.distance import squareform

    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    distances = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0)
    # The optimal order takes cubic time.
    tree = linkage(squareform(distances, checks=False), "average", optimal_ordering=len(counts) <= 300)
    return leaves_list(tree)


def confused_pairs(counts: np.ndarray, label_names: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return the most frequent mistakes, as rows of text: true class, predicted class, images, share of the class.

    The rows of the confusion matrix `counts` are true classes.
    """
    mistakes = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS]
    rows, columns = np.unravel_index(order, counts.shape)
    return [
        (label_names[i], label_names[j], f"{counts[i, j]:,}", f"{100 * counts[i, j] / counts[i].sum():.1f}%")
        for i, j in zip(rows, columns, strict=True)
        if mistakes[i, j]
    ]


@fonts()
def plot_confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str], path: Path, title: str) -> None:
    """Draw a confusion matrix as a PNG, each cell coloured by its fraction of the true class.

    A class with a name that no installed font can show is labelled by its number, from 1.
    """
    from matplotlib.figure import Figure  # here, because it is slow to import

    counts = np.array(confusion)
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
    figure.savefig(path, dpi=110)
