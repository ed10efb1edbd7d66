"""The three splits of a dataset, either decoded into memory or decoded on demand."""

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from mixer_jax.cache import cores
from mixer_jax.data.sources import Source, Subset
from mixer_jax.errors import UserError
from mixer_jax.messages import say

# What all threads together read at a time, in examples and in bytes; array_record is fast only for large reads.
CHUNK, CHUNK_BYTES = 1000, 2**28
COUNTED = 2**20  # pixels at a time, for the statistics
LONG = 5.0  # seconds; decoding that takes longer is reported in a line


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Decoded examples in memory. A split is equal only to itself.

    Attributes:
      images: (n, height, width, channels) uint8.
      labels: (n,) int32.
      source: the source of the examples, which knows their names; None if it is unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    source: Source | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of an image: (height, width, channels)."""
        return self.images.shape[1:]

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and the labels at these indices.

        Unlike in `StreamedSplit.read`, an index of -1 selects the last example.
        """
        return self.images[indices], self.labels[indices]

    def subset(self, indices: np.ndarray) -> "Split":
        """Return a split with copies of the examples at these indices."""
        source = None if self.source is None else Subset(self.source, indices)
        return Split(self.images[indices], self.labels[indices], source)

    def known_labels(self) -> np.ndarray | None:
        """Return the labels, (n,) int32; see `StreamedSplit.known_labels`."""
        return self.labels

    def name(self, index: int) -> str:
        """Return a short name of an example; see `Source.name`."""
        return str(index) if self.source is None else self.source.name(index)

    def identity(self) -> Iterable[bytes]:
        """Yield the bytes that the fingerprint is computed from: every pixel and label, and their shapes and dtypes."""
        for array in (self.images, self.labels):
            yield f"{array.shape}{array.dtype}".encode()
            yield np.ascontiguousarray(array).tobytes()


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Examples that are decoded on demand. A split is equal only to itself.

    Attributes:
      source: the source of the examples.
      image_shape: (height, width, channels), the same for all images.
    """

    source: Source
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Decode examples.

        Args:
          indices: (n,) indices into the split; -1 stands for no example.

        Returns:
          Images (n, height, width, channels) uint8 and labels (n,) int32. Both are zero for an index of -1.

        Raises:
          UserError: if an image has a different shape, or a label is out of range.
        """
        images = np.zeros((len(indices), *self.image_shape), np.uint8)
        labels = np.zeros(len(indices), np.int32)
        present = [(place, int(index)) for place, index in enumerate(indices) if index >= 0]
        examples = self.source.__getitems__([index for _, index in present]) if present else []
        for (place, index), (image, label) in zip(present, examples, strict=True):
            self.require(index, image, label)
            images[place], labels[place] = image, label
        return images, labels

    def require(self, index: int, image: np.ndarray, label: int) -> None:
        """Raise `UserError` if an example has a different shape from the first one, or a label that is out of range."""
        if image.shape != self.image_shape:
            one, other = ("x".join(map(str, shape)) for shape in (self.image_shape, image.shape))
            raise UserError(
                f"images differ in shape: {self.source.describe(0)} is {one}, {self.source.describe(index)} is "
                f"{other}; give the size to fit them to with config.dataset.image_size=HEIGHT,WIDTH"
            )
        if not 0 <= label < (num_classes := len(self.source.label_names)):
            raise UserError(f"{self.source.describe(index)} has label {label}, outside 0..{num_classes - 1}")

    def name(self, index: int) -> str:
        """Return a short name of an example; see `Source.name`."""
        return self.source.name(index)

    def known_labels(self) -> np.ndarray | None:
        """Return the labels, (n,) int, or None if they are not known without reading examples."""
        return self.source.labels() if self.source.labels_at_hand else None

    def identity(self) -> Iterable[bytes]:
        """Return the bytes that the fingerprint is computed from: what the source knows without decoding."""
        return self.source.identity()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The splits, classes and pixel statistics that a run uses.

    Attributes:
      name: the name in the config.
      label_names: the class names, in the order of the labels.
      train, val, test: the splits; the best epoch is chosen on `val`.
      mean, std: one number per channel, for pixels in [0, 1]. The model's input is these pixels minus `mean`,
        divided by `std`. By default they are the statistics of the training pixels.
      cautions: facts that make an accuracy less meaningful than it looks, one line each; printed as warnings.
      bits: the number of bits that the levels of 16-bit images really use, such as 12; as in `Fit`.
    """

    name: str
    label_names: tuple[str, ...]
    train: Split | StreamedSplit
    val: Split | StreamedSplit
    test: Split | StreamedSplit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    cautions: tuple[str, ...] = ()
    bits: int = 16

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.train.image_shape

    @property
    def streamed(self) -> bool:
        """Whether the images are decoded on demand."""
        return isinstance(self.train, StreamedSplit)

    def info(self) -> dict[str, Any]:
        """Return the description of the dataset that a run directory stores in its config.json."""
        names = ("label_names", "image_shape", "mean", "std", "bits", "streamed", "fingerprint")
        # The number of images held out of a streamed dataset may differ by a few.
        num_images = {"train": len(self.train) + len(self.val), "test": len(self.test)}
        return {"num_images": num_images} | {name: getattr(self, name) for name in names}

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash that shows whether two runs used the same data.

        For a split in memory, the hash covers every pixel and label. A streamed split is never read completely, so the
        hash covers what its source knows without decoding, such as the names and sizes of its files.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            for piece in split.identity():
                digest.update(piece)
        return digest.hexdigest()[:16]


def stream(source: Source, title: str) -> StreamedSplit:
    """Return the split of a source whose images all have the shape of the first one.

    Raises:
      UserError: if the source is empty, or its first label is out of range. The error message refers to the examples by
        `title`.
    """
    if not len(source):
        raise UserError(f"{title} has no examples")
    [(image, label)] = source.__getitems__([0])
    split = StreamedSplit(source, image.shape)
    split.require(0, image, label)  # TFDS has splits without labels, where all are -1
    return split


def decode(source: Source, title: str) -> Split:
    """Read all examples of a source into memory, with a progress bar.

    Raises:
      UserError: if the source is empty, its images differ in shape, or a label is out of range. The error message and
        the progress bar refer to the examples by `title`.
    """
    split, n = stream(source, title), len(source)
    images, labels = np.empty((n, *split.image_shape), np.uint8), np.empty(n, np.int32)
    for part, *examples in read_in_parts(split, title):
        images[part], labels[part] = examples
    return Split(images, labels, source)


def read_in_parts(split: StreamedSplit, title: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the indices, images and labels of parts of a split, read by several threads, with a progress bar."""
    began, n, chunk = time.monotonic(), len(split), min(CHUNK, CHUNK_BYTES // math.prod(split.image_shape) + 1)
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(total=n, desc=title, unit="images", leave=False, disable=None) as bar,
    ):
        for start in range(0, n, chunk):
            parts = np.array_split(np.arange(start, min(start + chunk, n)), cores())
            for part, examples in zip(parts, pool.map(split.read, parts), strict=True):
                yield part, *examples
                bar.update(len(part))
    if (seconds := time.monotonic() - began) > LONG:
        say(f"Decoded {n:,} {title} in {seconds:.0f} s, {n / seconds:,.0f} images/s")


def count_levels(images: np.ndarray) -> np.ndarray:
    """Return how often each level occurs in images (n, height, width, channels) uint8, (channels, 256) int."""
    pixels = images.reshape(-1, images.shape[-1])
    parts = np.array_split(pixels, len(pixels) // COUNTED + 1)  # `bincount` copies its input as 8 bytes per value
    return np.array([sum(np.bincount(part[:, i], minlength=256) for part in parts) for i in range(images.shape[-1])])


def pixel_statistics(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and standard deviation of each channel, for pixels in [0, 1], from `count_levels`."""
    levels, mean, std = np.arange(256) / 255, [], []
    for share in counts / counts.sum(axis=1, keepdims=True):
        mean.append(float(share @ levels))
        std.append(float(np.sqrt(share @ (levels - mean[-1]) ** 2)))
    return tuple(mean), tuple(std)
