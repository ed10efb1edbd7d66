"""The files of a checkpoint: arrays, which Orbax writes, and a manifest, by which the files are verified."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixer_jax import storage

Tree = Any


class Damaged(Exception):
    """A checkpoint differs from what was written, or cannot be read."""


def verify(path: Path) -> dict[str, Any]:
    """Compare the files of a checkpoint with its manifest, and return the content of its progress.json.

    Raises:
      Damaged: names the first file that is missing, truncated, changed or unreadable.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        entries = [(name, int(size), str(digest)) for name, (size, digest) in manifest.items()]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {path} has no readable manifest.json") from error
    for name, size, digest in entries:
        if not (path / name).is_file():
            raise Damaged(f"checkpoint {path} is damaged: {name} is missing")
        if (found := (path / name).stat().st_size) != size:
            raise Damaged(f"checkpoint {path} is damaged: {name} has {found:,} bytes of {size:,}")
        if _hash(path / name) != digest:
            raise Damaged(f"checkpoint {path} is damaged: the content of {name} has changed")
    try:
        progress = json.loads((path / "progress.json").read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"checkpoint {path} has no readable progress.json") from error
    if not isinstance(progress, dict) or progress.get("step") != int(path.name):
        raise Damaged(f"checkpoint {path} holds a different step from that in its name")
    return progress


@contextlib.contextmanager
def _orbax() -> Iterator[tuple[Any, Any]]:
    """Yield Orbax's checkpointer, and Orbax's module `args`."""
    import orbax.checkpoint as ocp  # imported late: a new run does not need it before its first step

    # Orbax must not wait for other processes, because only the first one calls it.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="alone"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        yield checkpointer, ocp.args


def save_arrays(path: Path, tree: Tree) -> None:
    """Write the arrays of a tree to a new folder."""
    tree = jax.tree.map(np.asarray, tree)  # older releases of Orbax do not accept NumPy scalars
    with _orbax() as (checkpointer, args):
        checkpointer.save(path.absolute(), args=args.StandardSave(tree))


def read_arrays(path: Path, like: Tree | None) -> Tree:
    """Return the arrays in a folder, as a tree like `like`, or as nested dicts if it is None.

    Raises:
      ValueError: if their shapes or dtypes differ from those of `like`. Orbax raises other exceptions, too.
    """
    like = like and jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    with _orbax() as (checkpointer, args):
        tree = checkpointer.restore(path.absolute(), args=args.StandardRestore(like))
    if like and _types(tree) != _types(like):
        raise ValueError("its arrays are of other shapes or types")
    return tree


def _types(tree: Tree) -> list[tuple[tuple[int, ...], np.dtype]]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def hashes(path: Path) -> dict[str, tuple[int, str]]:
    """Return the size in bytes and the SHA-256 of each file in a folder, once the files are on disk."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        storage.sync(file)
    return {p.relative_to(path).as_posix(): (p.stat().st_size, _hash(p)) for p in files}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
