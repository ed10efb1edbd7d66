"""The interface of a data source, and the sources that need no download: scikit-learn's digits and image folders."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from mixer_jax.data.images import UNCHANGED, Fit, read_image
from mixer_jax.data.listing import entries
from mixer_jax.data.tar_files import DISK, Store
from mixer_jax.errors import UserError, one_of

Example = tuple[np.ndarray, int]


class Source(Protocol):
    """A random-access sequence of labelled images: uint8 arrays (height, width, channels) and int labels.

    Several threads read from a source at the same time. Sources of image files use `images.read_image`, which
    accepts only certain formats.
    """

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names, in the order of the labels."""

    @property
    def labels_at_hand(self) -> bool:
        """Whether the labels are known without reading examples."""

    def __len__(self) -> int: ...

    def labels(self) -> np.ndarray | None:
        """Return the label of each example, (n,) int, or None if too much data would have to be read."""

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Return the examples at these indices, in the order of the indices."""

    def describe(self, index: int) -> str:
        """Return a description of where an example comes from, for error messages."""

    def name(self, index: int) -> str:
        """Return a short name of an example for tables: its file, if it has its own, or its number in the split."""

    def identity(self) -> Iterable[bytes]:
        """Yield bytes that identify these examples, without decoding them."""

    def files(self) -> Iterable[Path]:
        """Return the files on this machine that the examples are read from; unrelated files may be among them."""


@dataclasses.dataclass(frozen=True)
class Subset:
    """The examples of another source at `indices`, (n,) int; see `Source`."""

    source: Source
    indices: np.ndarray

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.source.label_names

    @property
    def labels_at_hand(self) -> bool:
        return self.source.labels_at_hand

    def __len__(self) -> int:
        return len(self.indices)

    def labels(self) -> np.ndarray | None:
        labels = self.source.labels()
        return None if labels is None else labels[self.indices]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        return self.source.__getitems__([int(self.indices[i]) for i in indices])

    def describe(self, index: int) -> str:
        return self.source.describe(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def identity(self) -> Iterable[bytes]:
        yield from self.source.identity()
        yield np.ascontiguousarray(self.indices).tobytes()

    def files(self) -> Iterable[Path]:
        return self.source.files()


def shuffled(n: int, seed: int, stream: int = 0) -> np.ndarray:
    """Return a permutation of range(n) that depends only on the seed and the stream.

    NumPy guarantees that the raw stream of a bit generator never changes. It does not guarantee that for
    `Generator.permutation`.

    Args:
      n: the number of elements.
      seed: an int, at least 0.
      stream: an int, at least 0: 0 to split a dataset, e for the e-th epoch, from 1.
    """
    return np.argsort(np.random.Philox(key=(seed, stream)).random_raw(n), kind="stable")


class Digits:
    """scikit-learn's 1,797 digits, 8x8 grey, shuffled once; see `Source`.

    The split "train" has the first 1,437 and "test" the other 360.
    """

    label_names = tuple("0123456789")
    labels_at_hand = False

    def __init__(self, split: str):
        if split not in ("train", "test"):
            raise one_of("split of digits", split, ("train", "test"))
        self._split = split
        self._part = range(1437) if split == "train" else range(1437, 1797)

    def __len__(self) -> int:
        return len(self._part)

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        images, labels = _digits()
        return [(images[i], int(labels[i])) for i in (self._part[index] for index in indices)]

    def labels(self) -> np.ndarray:
        return _digits()[1][self._part.start : self._part.stop]

    def describe(self, index: int) -> str:
        return f"image {index} of digits {self._split}"

    def name(self, index: int) -> str:
        return str(index)

    def identity(self) -> Iterable[bytes]:
        yield f"digits {self._split} of scikit-learn {version('scikit-learn')}".encode()

    def files(self) -> Iterable[Path]:
        yield _digits_file()


def _digits_file() -> Path:
    # Found and read without importing scikit-learn, which takes longer to import than jax.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise UserError("config.dataset.name=digits comes with scikit-learn, which is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    numbers = np.loadtxt(_digits_file(), delimiter=",")  # a row for each image: 64 grey levels from 0 to 16, the digit
    numbers = numbers[shuffled(len(numbers), seed=0)]
    images = np.round(numbers[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return images, numbers[:, -1].astype(int)


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Labelled image files; see `read_image` and `Source`.

    Attributes:
      paths: the image files.
      of_class: their labels, (n,) int.
      label_names: the class names.
      fit: how the images are scaled and cropped.
      root: the folder of the dataset.
      store: what the files are read from.
      channels: 1 to read them as grey, 3 as RGB.
      layout: one line that says how the images are arranged in the folder, and whether test images were drawn from
        them; "" if unknown.
    """

    paths: tuple[Path, ...]
    of_class: np.ndarray
    label_names: tuple[str, ...]
    fit: Fit
    root: Path
    store: Store = DISK
    channels: int = 3
    layout: str = ""
    labels_at_hand = True

    def labels(self) -> np.ndarray:
        return self.of_class

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        return [(self._read(self.paths[i]), int(self.of_class[i])) for i in indices]

    def describe(self, index: int) -> str:
        return str(self.paths[index])

    def name(self, index: int) -> str:
        return os.path.relpath(self.paths[index], self.root)

    def identity(self) -> Iterable[bytes]:
        return self._identity

    @functools.cached_property
    def _identity(self) -> list[bytes]:
        """The bytes that `identity` returns, cached because every file has to be looked up for them."""
        pieces = [str(self.fit)]
        for path, label in zip(self.paths, self.of_class, strict=True):
            folder, file = os.path.split(path)
            folder = os.path.basename(folder)
            try:
                size = self.store.status(path).bytes
            except OSError as error:
                raise UserError(f"cannot read image {path}: {error.strerror}") from error
            pieces.append(f"{folder}/{file} {size}\n")
            if (name := self.label_names[label]) != folder:  # else the folder says it
                pieces.append(f"{name}\n")
        return ["".join(pieces).encode(errors="surrogateescape")]

    def files(self) -> Iterable[Path]:
        return self.store.on_disk(self.paths)

    def _read(self, path: Path) -> np.ndarray:
        try:
            content = self.store.read(path)
        except OSError as error:
            raise UserError(f"cannot read image {path}: {error.strerror}") from error
        return read_image(path, self.fit, self.channels, content)


def image_folder(data_dir: str, split: str, fit: Fit = UNCHANGED) -> FolderSource:
    """Return the source of the image files `data_dir/split/<class>/*.png|jpg|jpeg`.

    The classes are the names of the folders in `data_dir/split`, sorted.

    Raises:
      UserError: if the folder is missing, unreadable or without class folders, or a class has no images.
    """
    top = Path(os.path.expanduser(data_dir))
    root = top / split
    folders = [Path(entry.path) for entry in entries(root) if entry.is_dir()]
    found_in = ((Path(entry.path) for entry in entries(folder)) for folder in folders)
    files = [[path for path in found if path.suffix.lower() in (".png", ".jpg", ".jpeg")] for found in found_in]
    if not folders:
        raise UserError(f"no class folders in {root}: expected {root}/<class>/*.png|jpg")
    for folder, found in zip(folders, files, strict=True):
        if not found:
            raise UserError(f"no images in {folder}: expected *.png, *.jpg or *.jpeg")
    labels = np.repeat(np.arange(len(folders)), [len(found) for found in files])
    paths, names = tuple(p for found in files for p in found), tuple(f.name for f in folders)
    return FolderSource(paths, labels, names, fit, top)
