"""The three splits of a dataset, decoded and checked."""

import dataclasses
import hashlib

import numpy as np
from tqdm import tqdm

from mixer_jax.data.sources import Source
from mixer_jax.errors import UserError

DECODE_CHUNK = 1000  # examples a read; array_record is fast only when asked for many


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Decoded examples: images (n, height, width, channels) uint8 and labels (n,) int32; equal only to itself."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run trains on and is measured on.

    Attributes:
      name: as in the config.
      label_names: the classes, in the order of the labels.
      train, val, test: the splits; the best epoch is chosen on `val`.
      mean, std: of the training pixels as fractions of 255, one a channel, which the model subtracts and divides by.
    """

    name: str
    label_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.train.images.shape[1:]

    def fingerprint(self) -> str:
        """A hash of every pixel and label, by which to tell whether two runs saw the same data."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            for array in (split.images, split.labels):
                digest.update(f"{array.shape}{array.dtype}".encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]


def decode(source: Source, title: str) -> Split:
    """Reads a whole source into memory, with a progress bar.

    Raises:
      UserError: if the source is empty, its images differ in shape, or a label is out of range.
    """
    n, num_classes = len(source), len(source.label_names)
    if n == 0:
        raise UserError(f"{title} has no examples")
    images, labels = None, np.empty(n, np.int32)
    for start in tqdm(range(0, n, DECODE_CHUNK), title, unit="k images", leave=False, disable=None):
        for i, (image, label) in enumerate(source.__getitems__(range(start, min(start + DECODE_CHUNK, n))), start):
            if images is None:
                images = np.empty((n, *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UserError(
                    f"images differ in shape: {source.describe(0)} is {_size(images[0])}, {source.describe(i)} is "
                    f"{_size(image)}; give the size to fit them to with --config.dataset.image_size=HEIGHT,WIDTH"
                )
            if not 0 <= label < num_classes:
                raise UserError(f"{source.describe(i)} has label {label}, outside 0..{num_classes - 1}")
            images[i], labels[i] = image, label
    return Split(images, labels)


def _size(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape))


def pixel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation of each channel of uint8 images, as fractions of 255, exact."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean.append(float(share @ levels))
        std.append(float(np.sqrt(share @ (levels - mean[-1]) ** 2)))
    return tuple(mean), tuple(std)
