"""Confusion matrices: the classes in an order that puts similar ones together, and the most confused pairs."""

from collections.abc import Sequence

import numpy as np

PAIRS = 20  # to list


def similarity_order(counts: np.ndarray) -> np.ndarray:
    """Return the classes in an order in which those that are confused with each other are close.

    The classes are clustered hierarchically by average linkage. The distance of two classes is 1 - share. The share is
    the mean of the fraction of the first class that is predicted as the second, and of the fraction of the second that
    is predicted as the first. Up to 300 classes, the leaves are in optimal order.

    Args:
      counts: (classes, classes) int; rows are true classes, columns predicted ones.
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

    Args:
      counts: (classes, classes) int; rows are true classes, columns predicted ones.
      label_names: of the classes.
    """
    mistakes = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS]
    rows, columns = np.unravel_index(order, counts.shape)
    return [
        (label_names[i], label_names[j], f"{counts[i, j]:,}", f"{100 * counts[i, j] / counts[i].sum():.1f}%")
        for i, j in zip(rows, columns, strict=True)
        if mistakes[i, j]
    ]
