"""A table of every image with its class and the predicted one, for example to find and correct wrong labels."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixer_jax.metrics import probabilities

COLUMNS = ("image", "class", "predicted", "probability", "probability_of_class")


def write_predictions(
    path: Path, names: Sequence[str], logits: np.ndarray, labels: np.ndarray, label_names: Sequence[str]
) -> None:
    """Write a CSV file with a row per image, mistakes first, the most confident ones at the top.

    Args:
      path: of the file.
      names: the n names of the images, such as their files.
      logits: (n, classes) float.
      labels: (n,) int, the true classes.
      label_names: the class names.
    """
    of_class, predicted = probabilities(logits), logits.argmax(1)
    confidence = of_class.max(1)
    # Undecodable bytes in the name of a file are written as they are.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in np.lexsort((np.where(predicted == labels, 0, -confidence), predicted == labels)):
            numbers = (f"{x:.6g}" for x in (confidence[i], of_class[i, labels[i]]))
            writer.writerow([names[i], label_names[labels[i]], label_names[predicted[i]], *numbers])
