"""Stores of image files: the disk, or tar files, such as those of WebDataset."""

import contextlib
import hashlib
import io
import json
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from mixer_jax.cache import cache_folder
from mixer_jax.data.images import IMAGE_SUFFIXES
from mixer_jax.data.label_table import COLUMNS
from mixer_jax.data.listing import is_hidden
from mixer_jax.errors import UserError
from mixer_jax.storage import write_json

FORMAT = 3  # of the kept list of a tar file's members
CLASS_SUFFIXES = (".cls", ".json")  # of the members that hold the class of the image with the same name


class Status(NamedTuple):
    """The size of a file in bytes, and the time of its modification in nanoseconds."""

    bytes: int
    modified: int


class Store:
    """Access to files by path: here, on this machine. Several threads read at the same time."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file; raise `OSError` if that is not possible."""
        return path.open("rb")

    def status(self, path: Path) -> Status:
        """Return the status of a file; raise `OSError` if that is not possible."""
        status = os.stat(path)
        return Status(status.st_size, status.st_mtime_ns)

    def on_disk(self, paths: Sequence[Path]) -> Iterable[Path]:
        """Return the files on this machine that contain these."""
        return paths


DISK = Store()


class _Member(NamedTuple):
    """A file in a tar file: its name, and where its content begins and how long it is, in bytes."""

    name: str
    offset: int
    bytes: int


class TarFiles(Store):
    """The images in tar files, each under the path of its tar file and its name there; see `Store`.

    The lists of the members are kept in the user's cache folder, so that a tar file is read through only once.
    """

    def __init__(self, tars: Sequence[Path]):
        """Read the lists of the members, with a progress bar.

        Args:
          tars: the tar files; compressed ones have no random access.

        Raises:
          UserError: if one of them cannot be read.
        """
        self._images: dict[Path, tuple[Path, _Member, str]] = {}  # the tar file, the place in it, and the class
        self._modified: dict[Path, int] = {}
        for tar in tqdm(tars, "listing", unit="tar files", leave=False, disable=None, delay=1):
            try:
                self._modified[tar] = DISK.status(tar).modified
                self._add(tar, _members(tar))
            except (OSError, tarfile.TarError) as error:
                raise UserError(f"cannot read {tar}: {getattr(error, 'strerror', None) or error}") from error

    def images(self) -> Iterator[tuple[Path, Path, str]]:
        """Yield the path, the tar file and the class of each image; the class is "" if it is unknown."""
        return ((path, tar, label) for path, (tar, _, label) in self._images.items())

    def open(self, path: Path) -> BinaryIO:
        tar, member, _ = self._images[path]
        return io.BytesIO(_read(tar, member))

    def status(self, path: Path) -> Status:
        tar, member, _ = self._images[path]
        return Status(member.bytes, self._modified[tar])

    def on_disk(self, paths: Sequence[Path]) -> Iterable[Path]:
        return list(self._modified)

    def _add(self, tar: Path, members: Sequence[_Member]) -> None:
        """Note the images of a tar file, with their classes."""
        by_suffix = sorted(members, key=lambda member: _suffix(member.name) == ".cls")  # if there are two, .cls counts
        classes = {_key(member.name): member for member in by_suffix if _suffix(member.name) in CLASS_SUFFIXES}
        for member in members:
            if _suffix(member.name) in IMAGE_SUFFIXES:
                found = classes.get(_key(member.name))
                label = _label(tar, found) if found else PurePosixPath(member.name).parent.name
                self._images[tar / member.name] = tar, member, label


def _members(tar: Path) -> list[_Member]:
    """Return the files in a tar file."""
    status = DISK.status(tar)
    key = f"{FORMAT} {tar.resolve()} {status.bytes} {status.modified}"
    kept = cache_folder("listed") / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:16]}.json"
    with contextlib.suppress(Exception):  # no list, or a damaged one
        return [_Member(*member) for member in json.loads(kept.read_text())]
    with tarfile.open(tar, "r:") as file:
        entries = {posixpath.normpath(entry.name): entry for entry in file}
    shown = (name for name in entries if not any(map(is_hidden, PurePosixPath(name.replace("../", "")).parts)))
    names = {name: name.lstrip("/") for name in shown}
    contents = ((name, _content(entries, name)) for name in names)
    found = [_Member(names[name], entry.offset_data, entry.size) for name, entry in contents if entry]
    with contextlib.suppress(Exception):  # without it, the tar file is read through again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, found)
    return found


def _content(entries: Mapping[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo | None:
    """Return the entry with the content of a file: its own, or that of the file it links to; None if there is none."""
    for _ in entries:  # a link may lead to another, or back to itself
        if (entry := entries.get(name)) is None:
            return None
        if not (entry.issym() or entry.islnk()):
            return entry if entry.isreg() and not entry.sparse else None
        folder = posixpath.dirname(name) if entry.issym() else ""  # a hard link names the file from the top
        name = posixpath.normpath(posixpath.join(folder, entry.linkname))
    return None


def _label(tar: Path, member: _Member) -> str:
    """Return the class that a member holds, as text or as a field of JSON; "" if it holds none."""
    text = _read(tar, member).decode("utf-8", errors="replace").strip()
    if _suffix(member.name) == ".json":
        try:
            content = json.loads(text)
        except ValueError:
            return ""
        fields = content if isinstance(content, dict) else {}
        found = (fields.get(name) for name in ("cls", *COLUMNS["class"]))
        return str(next((value for value in found if value is not None), "")).strip()
    return text


def _read(tar: Path, member: _Member) -> bytes:
    with tar.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), member.bytes, member.offset)


def _key(name: str) -> str:
    """Return the part of a name that the files of one example share: up to the first dot after the last slash."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
