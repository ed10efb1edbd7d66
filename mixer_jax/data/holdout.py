"""The choice of the training images that are held out for validation."""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.sources import shuffled
from mixer_jax.errors import UserError
from mixer_jax.messages import say

# Fixed, so that runs with different seeds use the same validation images.
SEED = 1


def hold_out(config: ConfigDict, size: int, labels: Callable[[], np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Choose the validation images at random, by default the same fraction of every class.

    The choice does not depend on the seed of the run.

    Args:
      config: the `dataset` section; see `mixer_jax.config`.
      size: the number of training images.
      labels: a function that returns the label of each image, (size,) int, or None if the labels are not known. Without
        labels, the images are chosen regardless of their class.

    Returns:
      The indices of the remaining training images and the indices of the validation images, both sorted. Each class
      keeps at least one training image, unless `config.hold_out` is "random" or the labels are not known.

    Raises:
      UserError: if one of the two splits would be empty.
    """
    wanted = round(size * config.val_fraction)
    order = shuffled(size, SEED)
    held = order[: max(wanted, 0)]
    if config.hold_out == "by_class" and 0 < wanted < size:
        if (known := labels()) is None:
            say(f"The validation images are drawn regardless of class: reading {size:,} labels would take too long")
        elif known.min() >= 0:  # else the images have no labels, which is reported when they are read
            held = by_class(order, known, wanted)
    if not 0 < len(held) < size:
        raise UserError(
            f"config.dataset.val_fraction={config.val_fraction} of {size} training images leaves an empty split: give "
            "another fraction, or more images, or name a split with config.dataset.val_split"
        )
    rest = np.ones(size, bool)
    rest[held] = False
    return np.flatnonzero(rest), np.flatnonzero(~rest)


def by_class(order: np.ndarray, labels: np.ndarray, wanted: int) -> np.ndarray:
    """Choose the same fraction of the images of each class.

    Each class contributes its share of `wanted`, rounded by the largest-remainder method; at least one image
    of each class is not chosen.

    Args:
      order: a permutation of the indices of the images; within each class, those that come first in it are chosen.
      labels: the label of each image, (n,) int.
      wanted: the number of images to choose.

    Returns:
      The indices of the chosen images.
    """
    counts = np.bincount(labels)
    shares = counts * (wanted / len(labels))
    quotas = np.floor(shares).astype(int)
    largest = np.argsort(quotas - shares, kind="stable")[: wanted - quotas.sum()]
    quotas[largest] += 1
    quotas = np.minimum(quotas, np.maximum(counts - 1, 0))
    by_label = order[np.argsort(labels[order], kind="stable")]
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_label[ranks < np.repeat(quotas, counts)]
