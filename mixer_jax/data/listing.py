"""The files below a folder: its images, and what is left out and why."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mixer_jax.data.images import IMAGE_SUFFIXES
from mixer_jax.errors import UserError, printable

# Names, in lower case, of files and folders that programs and systems leave behind.
IGNORED = {
    "__macosx", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "system volume information",
    "@eadir", "@recycle", "#recycle", "#snapshot",
}  # fmt: skip
PLACEHOLDER = ".icloud"  # hidden files that stand for files in iCloud
REMEDIES = {
    **dict.fromkeys((".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".exr"), "converted to JPEG or PNG"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"), "developed to JPEG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "split into frames"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"), "unpacked"),
    PLACEHOLDER: "downloaded from iCloud",
}
NAMED = 3  # the most files or classes that a line names
PLURAL = re.compile(r"^((?:\S+ )?(?:file|folder|link))s\b")


class Listing:
    """What is found below a folder. Hidden files are ignored.

    Attributes:
      top: the folder.
      root: the folder below it that holds the images.
      left_out: the images that are not used, and other files that may contain images, by reason.
      other_files: the files that hold no images, by their kind.
    """

    def __init__(self, top: Path):
        self.top = self.root = top
        self.left_out: dict[str, list[Path]] = {}
        self.other_files: dict[str, list[Path]] = {}
        self._noted: set[Path] = set()

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, sorted by name.

        Raises:
          UserError: if the folder cannot be read.
        """
        return [Path(entry.path) for entry in entries(folder) if _kind(entry) == "folder"]

    def images(self, folder: Path, deep: bool = False, without: Iterable[Path] = ()) -> list[Path]:
        """Return the image files in a folder and, if `deep`, below it, but not in `without`; note the other files.

        Raises:
          UserError: if a folder cannot be read.
        """
        real = Path(os.path.realpath(folder))
        seen = {real, *real.parents, *(Path(os.path.realpath(path)) for path in without)}  # links may lead there
        images, stack = [], [folder]
        while stack:
            inner = []
            for entry in entries(stack.pop()):
                path, kind = Path(entry.path), _kind(entry)
                if kind == "folder":
                    if deep and (real := Path(os.path.realpath(path))) not in seen:
                        seen.add(real)
                        inner.append(path)
                elif kind and path.suffix.lower() in IMAGE_SUFFIXES:
                    images.append(path)
                elif path not in self._noted:
                    self._note(path, kind)
            stack += inner[::-1]
        return images

    def tar_files(self, folder: Path) -> list[Path]:
        """Return the tar files in a folder, sorted by name; compressed ones are not among them."""
        files = (Path(entry.path) for entry in entries(folder) if _kind(entry) == "file")
        return [path for path in files if path.suffix.lower() == ".tar"]

    def use(self, path: Path) -> None:
        """Note a file that is used, though it is not an image."""
        self._noted.add(path)
        for kind, paths in list(self.other_files.items()):
            if path in paths:
                self.other_files[kind] = [other for other in paths if other != path]

    def leave_out(self, path: Path, reason: str) -> None:
        """Note a file that is not used; `reason` is phrased to follow a count, as in "3 special files"."""
        self._noted.add(path)
        self.left_out.setdefault(reason, []).append(path)

    def reasons(self, other_files: bool = True) -> list[str]:
        """Return, for each reason, how many files are left out and the first few of their names.

        With `other_files`, files that hold no images are included.
        """
        lines = []
        found = self.left_out | (self.other_files if other_files else {})
        for reason, paths in filter(lambda item: item[1], found.items()):
            if len(paths) == 1:
                reason = PLURAL.sub(r"\1", reason)
            lines.append(f"{len(paths):,} {reason} ({some([self.below(path) for path in paths])})")
        return lines

    def below(self, path: Path) -> str:
        """Return a path relative to `top`, in a form that can be printed."""
        return printable(str(path).removeprefix(f"{self.top}{os.sep}"))

    def _note(self, path: Path, kind: str) -> None:
        self._noted.add(path)
        suffix = path.suffix.lower()
        if kind != "file":
            self.leave_out(path, "broken links" if kind else "special files")
        elif remedy := REMEDIES.get(suffix):
            self.leave_out(path, f"{suffix} files, to be {remedy}")
        else:
            self.other_files.setdefault(f"{suffix} files" if suffix else "files without a suffix", []).append(path)


def some(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first `most` names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def entries(folder: Path) -> list[os.DirEntry]:
    """Return the entries of a folder, without hidden ones and links to a folder above, sorted by name.

    Raises:
      UserError: if the folder cannot be read.
    """
    real = Path(os.path.realpath(folder))
    try:
        with os.scandir(folder) as found:
            shown = [entry for entry in found if not is_hidden(entry.name)]
    except OSError as error:
        raise UserError(f"cannot read image folder {error.filename}: {error.strerror}") from error
    shown = [entry for entry in shown if not _leads_above(entry, real)]
    return sorted(shown, key=lambda entry: entry.name)


def _leads_above(entry: os.DirEntry, folder: Path) -> bool:
    """Return whether an entry is a link to the folder that it is in, or to one above."""
    # Last, because it is slow on a network drive.
    return entry.is_symlink() and _kind(entry) == "folder" and folder.is_relative_to(os.path.realpath(entry.path))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is ignored."""
    return name.lower() in IGNORED or (name.startswith(".") and not name.endswith(PLACEHOLDER))


def _kind(entry: os.DirEntry) -> str:
    """Return "folder" or "file", also for a link to one; "link" for a broken link; "" for anything else."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:
        pass  # a link that leads to itself, or through a folder that must not be read
    return "link" if entry.is_symlink() else ""
