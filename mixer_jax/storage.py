"""Atomic writing of files, on disks that are full, slow or shared, or that do not support every system call."""

import contextlib
import errno
import glob
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixer_jax.errors import UserError, unreadable

# Errors for a call that a file system does not support: fsync of a folder on CIFS, vboxsf and some FUSE file systems.
UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}
NETWORK = {"9p", "afs", "ceph", "cifs", "drvfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "vboxsf"}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError from writing a file into a one-line `UserError` that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; fix that and run the same command again") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which replaces `path` once it is complete, and is deleted after an exception.

    Raises:
      UserError: for an OSError, as in `writing`.
    """
    partial = path.with_name(f".partial.{os.getpid()}.{path.name}")  # of this process, as another may write there, too
    for left in path.parent.glob(f".partial.*.{glob.escape(path.name)}"):
        if not is_running(int(digits) if (digits := left.name.split(".")[2]).isdecimal() else 0):
            left.unlink(missing_ok=True)  # by a process that was killed
    try:
        with writing(path):
            yield partial
            partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def is_running(process: int) -> bool:
    """Return whether this machine runs a process with this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
      UserError: if there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise unreadable(path, "it holds no JSON object")
    return content


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: at any moment, the file has either its old or its new content.

    Raises:
      UserError: if it cannot be written.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: at any moment, the file has either its old or its new content.

    Raises:
      UserError: if it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
        sync(partial)


def sync(path: Path) -> None:
    """Wait until the content of a file or folder is on disk, so that it survives a crash of the machine.

    Raises:
      OSError: if the call fails. A file system that does not support it is not an error.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise


def delete(folder: Path) -> None:
    """Delete a folder, emptying its files first: Google Drive moves them to its trash, where they still use storage.

    Raises:
      OSError: if a part of it could not be deleted.
    """
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:  # the content may have other names, in a backup
                os.truncate(file, 0)
    shutil.rmtree(folder)


def free_name(folder: Path, stem: str, suffix: str = "") -> Path:
    """Return the path of the first of `{stem}1{suffix}`, `{stem}2{suffix}`, ... that does not exist in the folder."""
    number = 1
    while (path := folder / f"{stem}{number}{suffix}").exists():
        number += 1
    return path


def on_network(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Return whether a path lies on a network drive, or on a drive that is served by a program (FUSE).

    Args:
      path: need not exist.
      mounts: Linux's list of mounted file systems; on other systems the result is False.
    """
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    where = {Path(line[1].replace("\\040", " ")): line[2] for line in lines if len(line) > 2}
    here = path.resolve()
    kind = next((where[folder] for folder in (here, *here.parents) if folder in where), "")
    return kind in NETWORK or kind.startswith("fuse")
