"""Decoded datasets, cached in the user's cache folder so that later runs start faster."""

import contextlib
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mixer_jax.cache import cache_folder
from mixer_jax.data.dataset import Split
from mixer_jax.data.memory import resident_size
from mixer_jax.data.sources import Source
from mixer_jax.errors import UserError
from mixer_jax.storage import replacing

ROOM = 10  # a dataset is cached only if this many copies of it would fit into the free disk space


class DecodedCache:
    """The cache entry of one dataset. Each write replaces the previous content."""

    def __init__(self, place: str, sources: Mapping[str, Source]):
        """Open the entry without decoding anything.

        Args:
          place: a string that distinguishes this dataset from others; its hash is the name of the cache file.
          sources: the source of each split, by the name of the split.
        """
        self._path = cache_folder("decoded") / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.npz"
        self._sources = sources

    def read(self, most: float) -> dict[str, Split] | None:
        """Return the cached splits, or None if they cannot be used.

        They can be used if the cache file is intact, its key equals `key()`, and its arrays have at most `most` bytes.
        """
        try:
            with self._path.open("rb") as whole, np.load(whole, allow_pickle=False) as file:
                if file["bytes"] > most or file["key"] != self.key():
                    return None
                splits = {
                    name: Split(file[f"{name} images"], file[f"{name} labels"], source)
                    for name, source in self._sources.items()
                }
            return splits if sum(map(resident_size, splits.values())) <= most else None
        except Exception:  # no file, or a damaged one, for which NumPy and zipfile raise many types of errors
            return None

    def key(self) -> str:
        """Return a hash of everything that affects decoding: files, decoders and the code of `mixer_jax.data`.

        The hash is empty if the sources have no files, or if a file cannot be read.
        """
        files = sorted({file for source in self._sources.values() for file in source.files()})
        if not files:
            return ""
        digest = hashlib.sha256(version("pillow").encode())
        files += sorted(Path(__file__).parent.glob("*.py"))
        # TFDS decodes with OpenCV if that is installed.
        if (opencv := importlib.util.find_spec("cv2")) and opencv.origin:
            files.append(Path(opencv.origin))
        try:
            for name, source in self._sources.items():
                digest.update(f"{name} {len(source)} {source.label_names}".encode())
                for piece in source.identity():
                    digest.update(piece)
            for file in files:
                status = file.stat()
                digest.update(os.fsencode(file))
                digest.update(f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
        except (OSError, UserError):
            return ""  # decoding will raise a clearer error
        return digest.hexdigest()

    def write(self, splits: Mapping[str, Split], key: str) -> None:
        """Store the decoded splits for later runs, if the disk has enough free space.

        Nothing is stored if `key`, the result of `key()` before the splits were decoded, is empty.
        """
        arrays: dict[str, np.ndarray] = {}
        for name, split in splits.items():
            arrays |= {f"{name} images": split.images, f"{name} labels": split.labels}
        size, folder = sum(x.nbytes for x in arrays.values()), self._path.parent
        with contextlib.suppress(OSError, UserError):  # without a cache file, the next run decodes again
            folder.mkdir(parents=True, exist_ok=True)
            if not key or ROOM * size > shutil.disk_usage(folder).free:
                return
            with replacing(self._path) as partial:
                np.savez(partial, key=key, bytes=size, **arrays)  # type: ignore[arg-type]
