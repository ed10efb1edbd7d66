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


class DecodedCache:
    """The place of a decoded set, which holds the last one that was put there."""

    def __init__(self, place: str, sources: Mapping[str, Source]):
        """Takes what tells this set's place from others', and its splits, of which nothing is decoded yet."""
        self._path = cache_folder("decoded") / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.npz"
        self._sources = sources

    def read(self, most: float) -> dict[str, Split] | None:
        """The splits, if they are there, whole, of the files and the program as they are now, and of `most` bytes."""
        try:
            with self._path.open("rb") as whole, np.load(whole, allow_pickle=False) as file:
                if file["bytes"] > most or file["key"] != self.key():
                    return None
                return {name: Split(file[f"{name} images"], file[f"{name} labels"]) for name in self._sources}
        except Exception:  # there is none, or its check sums do not fit: NumPy and zipfile say it in many ways
            return None

    def key(self) -> str:
        """A hash of all that decoding goes by: files, decoders and our own code; empty if there are no such files."""
        files = sorted({file for source in self._sources.values() for file in source.files()})
        if not files:
            return ""
        digest = hashlib.sha256(version("pillow").encode())
        files += sorted(Path(__file__).parent.glob("*.py"))
        # TFDS decodes with OpenCV where that is installed.
        if (opencv := importlib.util.find_spec("cv2")) and opencv.origin:
            files.append(Path(opencv.origin))
        try:
            for name, source in self._sources.items():
                digest.update(f"{name} {len(source)} {source.label_names}".encode())
                for piece in source.identity():
                    digest.update(piece)
            for file in files:
                status = file.stat()
                digest.update(f"{file} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
        except OSError:
            return ""  # decoding will say it better
        return digest.hexdigest()

    def write(self, splits: Mapping[str, Split], key: str) -> None:
        """Keeps the splits for the next start, with their key from before they were decoded, if the disk has room."""
        arrays: dict[str, np.ndarray] = {}
        for name, split in splits.items():
            arrays |= {f"{name} images": split.images, f"{name} labels": split.labels}
        size, folder = sum(x.nbytes for x in arrays.values()), self._path.parent
        with contextlib.suppress(OSError):  # then it is decoded again
            folder.mkdir(parents=True, exist_ok=True)
            if not key or ROOM * size > shutil.disk_usage(folder).free:
                return
            for left in folder.glob(f"{self._path.stem}.*.partial"):  # by a dead process
                left.unlink()
            partial = self._path.with_suffix(f".{os.getpid()}.partial")
            try:
                with partial.open("wb") as file:
                    np.savez(file, key=key, bytes=size, **arrays)  # type: ignore[arg-type]
                partial.replace(self._path)
            finally:
                partial.unlink(missing_ok=True)
