"""Decoded sets, kept in the user's cache folder: what one start has decoded, the next one reads in a moment."""

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
from mixer_jax.data.sources import Source

ROOM = 10  # a set is kept where this many of it would fit on the disk


class Kept:
    """The place of a decoded set, which holds the last one that was put there."""

    def __init__(self, place: str, sources: Mapping[str, Source]):
        """Takes what tells this set's place from others', and its splits, of which nothing is decoded yet."""
        self._path = cache_folder("decoded") / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.npz"
        self._key = _key(sources)
        self._names = tuple(sources)

    def read(self) -> dict[str, Split] | None:
        """The splits, if they are there, whole, and of the files and the program as they are now."""
        try:
            with self._path.open("rb") as whole, np.load(whole, allow_pickle=False) as file:
                if not self._key or file["key"] != self._key:
                    return None
                return {name: Split(file[f"{name} images"], file[f"{name} labels"]) for name in self._names}
        except Exception:  # there is none, or its check sums do not fit: NumPy and zipfile say it in many ways
            return None

    def write(self, splits: Mapping[str, Split]) -> None:
        """Keeps the splits for the next start, if the disk has room."""
        arrays = {}
        for name, split in splits.items():
            arrays |= {f"{name} images": split.images, f"{name} labels": split.labels}
        size, folder = sum(x.nbytes for x in arrays.values()), self._path.parent
        with contextlib.suppress(OSError):  # then it is decoded again
            folder.mkdir(parents=True, exist_ok=True)
            if not self._key or ROOM * size > shutil.disk_usage(folder).free:
                return
            partial = self._path.with_suffix(f".{os.getpid()}.partial")
            try:
                with partial.open("wb") as file:
                    np.savez(file, key=self._key, **arrays)
                partial.replace(self._path)
            finally:
                partial.unlink(missing_ok=True)


def _key(sources: Mapping[str, Source]) -> str:
    """A hash of all that decoding goes by: files, decoders and our own code; empty if there are no files to go by."""
    files = sorted({file for source in sources.values() for file in source.files()})
    if not files:
        return ""
    digest = hashlib.sha256(repr([version("pillow"), importlib.util.find_spec("cv2")]).encode())
    for name, source in sources.items():
        digest.update(f"{name} {len(source)} {source.label_names}".encode())
        for piece in source.identity():
            digest.update(piece)
    for file in [*files, *sorted(Path(__file__).parent.glob("*.py"))]:
        status = file.stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
