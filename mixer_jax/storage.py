"""Files that are whole at any moment, on disks that are full, slow, shared, or that know not every call."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixer_jax.errors import UserError

# What a file system says of a call that it does not know: CIFS, vboxsf and some of FUSE of the fsync of a folder.
UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}
NETWORK = {"9p", "afs", "ceph", "cifs", "drvfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "vboxsf"}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write a file into one line.

    Raises:
      UserError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; mend that and give the same command again") from error


def write_json(path: Path, value: Any) -> None:
    """Write a file so that at any moment it is either the old one or the new one, whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that at any moment it is either the old one or the new one, whole."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def sync(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk: a machine may go down as suddenly as a process.

    Raises:
      OSError: if they may never come there; not if the file system has no such call.
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
    """Delete a folder with all that is in it, emptying the files first: Google Drive counts its trash, too.

    Raises:
      OSError: if some of it is still there.
    """
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with contextlib.suppress(OSError):
                os.truncate(file, 0)
    shutil.rmtree(folder)


def free_name(folder: Path, stem: str, suffix: str = "") -> Path:
    """Return the first of stem1, stem2, ... that is not in the folder yet."""
    number = 1
    while (path := folder / f"{stem}{number}{suffix}").exists():
        number += 1
    return path


def on_network(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Return whether a path, which need not exist, lies on a network drive or another that a program serves (FUSE).

    Args:
      path: what is asked about.
      mounts: what is mounted where, as Linux tells; elsewhere nothing is known to be remote.
    """
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    where = {Path(line[1].replace("\\040", " ")): line[2] for line in lines if len(line) > 2}
    here = path.absolute()
    kind = next((where[folder] for folder in (here, *here.parents) if folder in where), "")
    return kind in NETWORK or kind.startswith("fuse")
