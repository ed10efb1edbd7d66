"""Stores of image files: the disk, or tar files, such as those of WebDataset."""

import contextlib
import hashlib
import json
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from tqdm import tqdm

from mixer_jax.cache import cache_folder
from mixer_jax.data.images import IMAGE_SUFFIXES
from mixer_jax.data.label_table import COLUMNS
from mixer_jax.data.listing import is_hidden
from mixer_jax.errors import UserError
from mixer_jax.messages import warn
from mixer_jax.storage import write_json

FORMAT = 4  # of the kept list of a tar file's images
CLASS_SUFFIXES = (".cls", ".json")  # of the members that hold the class of the image with the same name


class Status(NamedTuple):
    """The size of a file in bytes, and the time in nanoseconds at which its content or its location last changed."""

    bytes: int
    changed: int


class Store:
    """Access to files by path: this class reads from the disk, `TarFiles` from tar files.

    Several threads read at the same time.
    """

    def read(self, path: Path) -> bytes:
        """Return the content of a file; raise `OSError` if that is not possible."""
        return path.read_bytes()

    def status(self, path: Path) -> Status:
        """Return the status of a file; raise `OSError` if that is not possible."""
        status = os.stat(path)
        # A file that replaces another may have an older time of modification, but not an older time of change.
        return Status(status.st_size, max(status.st_mtime_ns, status.st_ctime_ns))

    def on_disk(self, paths: Sequence[Path]) -> Iterable[Path]:
        """Return the files on this machine that hold the contents of `paths`: the files themselves, or tar files."""
        return paths


DISK = Store()


class _Entry(NamedTuple):
    """An image in a tar file: its name, the place of its content and its length in bytes, and its class or ""."""

    name: str
    offset: int
    bytes: int
    label: str


class TarFiles(Store):
    """The images in tar files: the path of an image is that of its tar file, then its name in that file; see `Store`.

    The lists of the images are kept in the user's cache folder, so that a tar file is read through only once.
    """

    def __init__(self, tars: Sequence[Path]):
        """Read the lists of the images, with a progress bar.

        Args:
          tars: the tar files; compressed ones have no random access.

        Raises:
          UserError: if one of them cannot be read.
        """
        self._entries: dict[Path, tuple[Path, _Entry]] = {}
        self._changed: dict[Path, int] = {}
        for tar in tqdm(tars, "listing", unit="tar files", leave=False, disable=None, delay=1):
            try:
                status = DISK.status(tar)
                self._entries |= {tar / entry.name: (tar, entry) for entry in _entries(tar, status)}
            except tarfile.TarError as error:
                raise UserError(f"cannot read {tar}: it is damaged or compressed ({error})") from error
            except OSError as error:
                raise UserError(f"cannot read {tar}: {error.strerror}") from error
            self._changed[tar] = status.changed

    def images(self) -> Iterator[tuple[Path, Path, str]]:
        """Yield the path, the tar file and the class of each image; the class is "" if it is unknown."""
        return ((path, tar, entry.label) for path, (tar, entry) in self._entries.items())

    def read(self, path: Path) -> bytes:
        tar, entry = self._entries[path]
        with tar.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), entry.bytes, entry.offset)

    def status(self, path: Path) -> Status:
        tar, entry = self._entries[path]
        return Status(entry.bytes, self._changed[tar])

    def on_disk(self, paths: Sequence[Path]) -> Iterable[Path]:
        return list(self._changed)


def _entries(tar: Path, status: Status) -> list[_Entry]:
    """Return the images in a tar file."""
    key = f"{FORMAT} {tar.resolve()} {status.bytes} {status.changed}"
    kept = cache_folder("listed") / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:16]}.json"
    with contextlib.suppress(Exception):  # no list, or a damaged one
        return [_Entry(*entry) for entry in json.loads(kept.read_text())]
    with tarfile.open(tar, "r:") as file:
        members = {posixpath.normpath(member.name): member for member in file}
        ends = _require_whole(file, tar, len(members))
        shown = [name for name in members if not any(map(is_hidden, PurePosixPath(name.replace("../", "")).parts))]
        contents = {name: content for name in shown if (content := _content(members, name))}
        found = list(_images(file, contents))
    if not ends:
        return found  # to warn again
    with contextlib.suppress(Exception):  # without it, the tar file is read through again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, found)
    return found


def _require_whole(file: tarfile.TarFile, tar: Path, members: int) -> bool:
    """Raise `tarfile.ReadError` if data follow the last member that `tarfile` found.

    `tarfile` mistakes a damaged header for the end of the file. Return whether the file has an end mark; if not, a
    warning is given.
    """
    assert file.fileobj
    if tar.stat().st_size == file.offset:
        warn(f"{tar} may be cut off: it has no end mark after the {members:,} files in it")
        return False
    file.fileobj.seek(file.offset)
    while rest := file.fileobj.read(2**20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"no valid header after the first {members:,} files")
    return True


def _content(members: Mapping[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo | None:
    """Return the member that holds a file's content: the file's own or, for a link, its target's; None if none does."""
    for _ in members:  # a link may lead to another, or back to itself
        if (member := members.get(name)) is None:
            return None
        if not (member.issym() or member.islnk()):
            return member if member.isreg() and not member.sparse else None
        folder = posixpath.dirname(name) if member.issym() else ""  # a hard link names the file from the top
        name = posixpath.normpath(posixpath.join(folder, member.linkname))
    return None


def _images(file: tarfile.TarFile, contents: Mapping[str, tarfile.TarInfo]) -> Iterator[_Entry]:
    """Yield the images of a tar file.

    The class of an image is in the file with the same name up to the suffix or, as in WebDataset, up to the first dot.
    If there are no such files, the classes are the names of the folders.
    """
    by_suffix = sorted(contents, key=lambda name: _suffix(name) == ".cls")  # if there are two, .cls counts
    of_files = [name for name in by_suffix if _suffix(name) in CLASS_SUFFIXES]
    labels = {name: label for name in of_files if (label := _label(file, contents[name], _suffix(name)))}
    exact = {_stem(name): label for name, label in labels.items()}
    of_key: dict[str, set[str]] = {}
    for name, label in labels.items():
        of_key.setdefault(_key(name), set()).add(label)
    of_key |= {key: {exact[key]} for key in of_key if key in exact}
    for name in contents:
        if _suffix(name) in IMAGE_SUFFIXES:
            found = {exact[_stem(name)]} if _stem(name) in exact else of_key.get(_key(name), set())
            folder = "" if labels else PurePosixPath(name).parent.name
            label = next(iter(found)) if len(found) == 1 else folder
            yield _Entry(name.lstrip("/"), contents[name].offset_data, contents[name].size, label)


def _label(file: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> str:
    """Return the class that a member holds, as text or as a field of JSON; "" if it holds none."""
    content = cast(IO[bytes], file.extractfile(member)).read()  # None for members that are not files
    text = content.decode("utf-8-sig", errors="replace").strip()
    if suffix == ".json":
        try:
            parsed = json.loads(text)
        except ValueError:
            return ""
        fields = parsed if isinstance(parsed, dict) else {}
        values = (fields.get(name) for name in ("cls", *COLUMNS["class"]))
        return str(next((value for value in values if value is not None), "")).strip()
    return text


def _stem(name: str) -> str:
    """Return a name without its suffix."""
    return name.removesuffix(PurePosixPath(name).suffix)


def _key(name: str) -> str:
    """Return the part of a name that the files of one example share: up to the first dot after the last slash."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
