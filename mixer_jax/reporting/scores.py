"""How good a model is, of its logits and the labels: accuracies, loss, calibration, confusion."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixer_jax.reporting.curves import plain

TOP = 5
CALIBRATION_BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks", 2017
WORST_CLASSES = 5


def score(logits: np.ndarray, labels: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    """Scores predictions.

    Args:
      logits: (n, classes) float.
      labels: (n,) int.
      label_names: of the classes.

    Returns:
      `examples`; `accuracy` and `top5_accuracy` in percent; `loss`, the mean cross-entropy in nats;
      `calibration_error`, the expected one in percent, over 15 bins of equal width; `calibration`, of each bin that is
      not empty its `confidence` and `accuracy` in percent and its `count`; `per_class`, of each class its `accuracy`
      (None without examples) and `count`; `confusion`, rows the true classes, columns the predicted ones.
    """
    n, num_classes = logits.shape
    log_probabilities = _log_softmax(logits)
    predicted, confidence = logits.argmax(1), np.exp(log_probabilities.max(1))
    correct = predicted == labels
    # Better than the label's own are so many; of equals the first counts as better, as argmax has it.
    own = logits[np.arange(n), labels][:, None]
    rank = (logits > own).sum(1) + ((logits == own) & (np.arange(num_classes) < labels[:, None])).sum(1)
    confusion = np.zeros((num_classes, num_classes), int)
    np.add.at(confusion, (labels, predicted), 1)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    calibration = [
        {
            "confidence": 100.0 * float(confidence[bins == b].mean()),
            "accuracy": 100.0 * float(correct[bins == b].mean()),
            "count": int((bins == b).sum()),
        }
        for b in np.unique(bins)
    ]
    return {
        "examples": n,
        "accuracy": 100.0 * float(correct.mean()),
        "top5_accuracy": 100.0 * float((rank < TOP).mean()),
        "loss": float(-log_probabilities[np.arange(n), labels].mean()),
        "calibration_error": sum(b["count"] / n * abs(b["confidence"] - b["accuracy"]) for b in calibration),
        "calibration": calibration,
        "per_class": {
            name: {"accuracy": 100.0 * int(row[i]) / int(row.sum()) if row.any() else None, "count": int(row.sum())}
            for i, (name, row) in enumerate(zip(label_names, confusion, strict=True))
        },
        "confusion": confusion.tolist(),
    }


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of logits (n, classes), float64; SciPy would be imported for this alone."""
    return np.exp(_log_softmax(logits))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def describe(scores: dict[str, Any]) -> str:
    """The scores in a few lines, with the classes that are hardest."""
    seen = {name: of_class for name, of_class in scores["per_class"].items() if of_class["count"]}
    hardest = sorted(seen, key=lambda name: seen[name]["accuracy"])[:WORST_CLASSES]
    lines = {
        "accuracy": f"{scores['accuracy']:.2f}% top-1, {scores['top5_accuracy']:.2f}% top-{TOP}",
        "loss": f"{scores['loss']:.4f}",
        "calibration": f"{scores['calibration_error']:.2f}% expected error ({CALIBRATION_BINS} bins)",
        "hardest": ", ".join(f"{name} {seen[name]['accuracy']:.1f}%" for name in hardest),
    }
    return "\n".join(f"  {name:15} {line}" for name, line in lines.items())


def write_confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str], path: Path) -> None:
    """Writes the matrix as CSV, a row a true class, a column a predicted one."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["true / predicted", *label_names])
        writer.writerows([name, *row] for name, row in zip(label_names, confusion, strict=True))


def plot_confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str], path: Path, title: str) -> None:
    """Draws the matrix as a PNG, each row as shares of its true class."""
    from matplotlib.figure import Figure  # only here: it is slow to import

    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    n, few = len(label_names), len(label_names) <= 20
    side = 3 + 0.45 * min(n, 30)
    figure = Figure(figsize=(side + (not few), side), layout="constrained")
    panel = figure.subplots()
    drawn = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if not few:  # the cells of few have their numbers inside
        figure.colorbar(drawn, ax=panel, label="share of the true class", shrink=0.8)
    panel.set(xlabel="predicted", ylabel="true", title=title)
    if n <= 100:
        size = 9 if few else max(3, 240 // n)
        names = list(map(plain, label_names))
        panel.set_xticks(range(n), names, rotation=90 if max(map(len, label_names)) > 2 else 0, fontsize=size)
        panel.set_yticks(range(n), names, fontsize=size)
    for row, column in np.argwhere(counts) if few else ():
        color = "white" if shares[row, column] > 0.5 else "black"
        number = panel.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=color)
        number.set_in_layout(False)  # which would measure each
    figure.savefig(path, dpi=110)
