"""Scores of predictions, computed from logits and labels: accuracies, loss, calibration, confusion."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax

TOP = 5
CALIBRATION_BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks", 2017


def classification_scores(logits: np.ndarray, labels: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    """Return the scores of predictions.

    Args:
      logits: (n, classes) float.
      labels: (n,) int, the true classes.
      label_names: the names of the classes.

    Returns:
      A dictionary of JSON values:

      examples: the number of examples, n.
      accuracy, top5_accuracy: in percent.
      loss: the mean cross-entropy in nats.
      calibration_error: the expected calibration error in percent, over 15 confidence bins of equal width.
      calibration: for each bin that is not empty, its mean `confidence` and `accuracy` in percent, and its `count`.
      balanced_accuracy: the mean of the accuracies of the classes that have examples, in percent.
      per_class: for each class name, its `count` of examples; its `accuracy` (which is its recall), its `precision` and
        its `f1`, in percent, or None if they are not defined; and `confused_with`, the class that is most often
        predicted in its place, or None.
      confusion: the confusion matrix, as counts, with true classes as rows and predicted classes as columns.
    """
    n, num_classes = logits.shape
    accuracy, loss = accuracy_and_loss(logits, labels)
    log_probabilities = _log_softmax(logits)
    predicted, confidence = logits.argmax(1), np.exp(log_probabilities.max(1))
    correct = predicted == labels
    # The number of classes ranked before the label; of equal logits the first ranks first, as in argmax.
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
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy(logits, labels),
        "top5_accuracy": 100.0 * float((rank < TOP).mean()),
        "loss": loss,
        "calibration_error": sum(b["count"] / n * abs(b["confidence"] - b["accuracy"]) for b in calibration),
        "calibration": calibration,
        "per_class": {name: _class_scores(confusion, i, label_names) for i, name in enumerate(label_names)},
        "confusion": confusion.tolist(),
    }


def _class_scores(confusion: np.ndarray, i: int, label_names: Sequence[str]) -> dict[str, Any]:
    """Return an entry of `per_class`."""
    right, count, predicted = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
    others = confusion[i].copy()
    others[i] = 0
    return {
        "count": count,
        "accuracy": 100.0 * right / count if count else None,
        "precision": 100.0 * right / predicted if predicted else None,
        "f1": 200.0 * right / (count + predicted) if count + predicted else None,
        "confused_with": label_names[int(others.argmax())] if others.any() else None,
    }


def balanced_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the balanced accuracy in percent, as in `classification_scores`."""
    correct = logits.argmax(1) == labels
    return 100.0 * float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def accuracy_interval(accuracy: float, examples: int) -> tuple[float, float]:
    """Return the 95% confidence interval of an accuracy over test images, in percent (Wilson's score interval).

    Args:
      accuracy: in percent.
      examples: the number of test images.
    """
    share, z = accuracy / 100, 1.959964
    center = (share + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * math.sqrt(share * (1 - share) / examples + z**2 / (4 * examples**2))
    return 100 * max(center - half, 0.0), 100 * min(center + half, 1.0)


def hardest_first(right: np.ndarray, counts: np.ndarray) -> list[int]:
    """Return the classes that have examples, the hardest first.

    They are ordered by the upper end of the 95% interval of their accuracy, so that a class with one mistake in one
    image does not come before a class with twenty in thirty.

    Args:
      right, counts: (classes,) int, for each class the number of its correctly classified examples, and the number of
        all its examples.
    """
    ends = {
        i: accuracy_interval(100.0 * float(right[i] / count), int(count))[1] for i, count in enumerate(counts) if count
    }
    return sorted(ends, key=lambda i: ends[i])


def accuracy_and_loss(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the accuracy in percent and the mean cross-entropy in nats, as in `classification_scores`."""
    own = _log_softmax(logits)[np.arange(len(labels)), labels]
    return 100.0 * float((logits.argmax(1) == labels).mean()), float(-own.mean())


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (n, classes), as float64."""
    return np.exp(_log_softmax(logits))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return log_softmax(logits.astype(np.float64), axis=1)
