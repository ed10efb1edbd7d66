"""Checkpoints: Orbax writes the arrays, and hashes of every file tell a whole checkpoint from a damaged one.

checkpoints/1200/          of step 1200; there only when it is whole
    state/                 all that training goes on from: parameters, optimiser, step, seed
    best/                  the parameters of the best epoch so far, as they are evaluated
    progress.json          metrics.jsonl up to here, what the epoch has added up to, and where this ran
    manifest.json          size and SHA-256 of each file
checkpoints/1100/          the one before, should 1200 come to harm
checkpoints/1200.partial/  being written or deleted; a dead process may leave one, which the next removes
checkpoints/1000.damaged/  set aside
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

KEPT = 2  # the newest, and one to fall back on
ROOM = 2**20  # bytes that names and metadata may take beside the arrays

Tree = Any


class Damaged(Exception):
    """A checkpoint that is not what was written."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Attributes:
      step: steps done.
      state: the `TrainState`, of host arrays, so that it belongs to no device count and no platform; or () where only
        the best epoch's parameters were asked for.
      best: parameters of the best epoch, host arrays, or () before the first epoch is over.
      progress: the rest, as JSON has it.
    """

    step: int
    state: Tree
    best: Tree
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, written in the background."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: concurrent.futures.Future | None = None

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, damaged or not, in order."""
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(int(p.name) for p in found if p.name.isdecimal() and p.is_dir())

    def save(self, checkpoint: Checkpoint) -> None:
        """Starts to write a checkpoint, whose arrays stay as they are; when it is whole, drops all but the newest.

        Raises:
          OSError: if the checkpoint before this could not be written; it has left no trace.
        """
        self.wait()
        progress = json.dumps(checkpoint.progress)  # now: the run goes on with it
        self._writing = self._writer.submit(self._write, checkpoint, progress)

    def wait(self) -> None:
        """Returns when everything is on disk; raises as `save`."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Waits as well, but looks at no error."""
        self._writer.shutdown()

    def newest(
        self, like: Checkpoint | None = None, set_aside: bool = True, best_alone: bool = False
    ) -> tuple[Checkpoint | None, list[str]]:
        """Reads the newest checkpoint that is whole, and sets the damaged ones that are newer aside.

        Args:
          like, best_alone: as for `read`.
          set_aside: or leave them where they are.

        Returns:
          The checkpoint, or None if there is none; and what was wrong with each that is damaged.

        Raises:
          Damaged: if all are; then they stay where they are.
        """
        problems = {}
        for step in reversed(self.steps()):
            try:
                checkpoint = self.read(step, like, best_alone)
                break
            except Damaged as error:
                problems[step] = str(error)
        else:
            if problems:
                raise Damaged("; ".join(problems.values()))
            checkpoint = None
        for step in problems if set_aside else ():
            _set_aside(self.directory / str(step))
        return checkpoint, list(problems.values())

    def read(self, step: int, like: Checkpoint | None = None, best_alone: bool = False) -> Checkpoint:
        """Reads the checkpoint of a step.

        Args:
          step: which.
          like: has the structure, shapes and types of what is to be read; without it trees of dicts, as on disk.
          best_alone: leave out the state, which with its optimiser's is several times the size.

        Raises:
          Damaged: if it is not whole, or not like `like`.
        """
        path = self.directory / str(step)
        progress = verify(path)
        try:
            state = () if best_alone else _read(path / "state", like and like.state)
            best = _read(path / "best", like and like.best) if (path / "best").exists() else ()
        except Exception as error:  # whatever Orbax and TensorStore raise; nothing of theirs is promised
            raise Damaged(f"checkpoint {path} cannot be read, or is another release's: {_first_line(error)}") from error
        return Checkpoint(step, state, best, progress)

    def _write(self, checkpoint: Checkpoint, progress: str) -> None:
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(checkpoint.state)):
            return  # the next loss will be no number either, and end the run; the last good one stays
        path = self.directory / str(checkpoint.step)
        partial = path.with_name(f"{path.name}.partial")
        try:
            self._sweep()
            partial.mkdir(parents=True)
            _require_room(self.directory, jax.tree.leaves((checkpoint.state, checkpoint.best)))
            _save(partial / "state", checkpoint.state)
            if jax.tree.leaves(checkpoint.best):
                _save(partial / "best", checkpoint.best)
            (partial / "progress.json").write_text(progress)
            (partial / "manifest.json").write_text(json.dumps(_hashes(partial), indent=1))
            _sync(partial / "manifest.json")
            if path.exists():  # written again after a resume that went back to an earlier one
                path.rename(self.directory / f"{path.name}.old.partial")
            partial.rename(path)
            _sync(self.directory)
        except Exception as error:  # TensorStore's errors are ValueErrors, on a full disk too
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"cannot write checkpoint {path}: {_first_line(error)}") from error
        for step in self.steps()[:-KEPT]:
            # Under its own name a half-deleted one would look damaged.
            (self.directory / str(step)).rename(self.directory / f"{step}.partial")
        self._sweep()

    def _sweep(self) -> None:
        """Deletes what counts for nothing."""
        for leftover in self.directory.glob("*.partial"):
            shutil.rmtree(leftover)


def verify(path: Path) -> dict[str, Any]:
    """Compares a checkpoint with its manifest; returns its progress.json.

    Raises:
      Damaged: naming the first file that is missing, cut short or changed.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        entries = [(name, int(size), str(digest)) for name, (size, digest) in manifest.items()]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {path} has no readable manifest.json") from error
    names = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    for name, size, digest in entries:
        if name not in names:
            raise Damaged(f"checkpoint {path} is damaged: {name} is missing")
        if (found := names[name].stat().st_size) != size:
            raise Damaged(f"checkpoint {path} is damaged: {name} has {found:,} bytes of {size:,}")
        if _hash(names[name]) != digest:
            raise Damaged(f"checkpoint {path} is damaged: the content of {name} has changed")
    try:
        progress = json.loads((path / "progress.json").read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"checkpoint {path} has no readable progress.json") from error
    if not isinstance(progress, dict) or progress.get("step") != int(path.name):
        raise Damaged(f"checkpoint {path} is of another step than its name says")
    return progress


def _require_room(directory: Path, arrays: list[np.ndarray]) -> None:
    """Finds out that a disk is full before Orbax does, all of whose threads then tell at length."""
    needed, free = sum(x.nbytes for x in arrays) + ROOM, shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(f"no space left on the device: {free / 2**20:.1f} MiB free, {needed / 2**20:.1f} needed")


@contextlib.contextmanager
def _orbax() -> Iterator[tuple[Any, Any]]:
    """Orbax's checkpointer, and the arguments that it takes."""
    import orbax.checkpoint as ocp  # only now: a run that starts needs nothing of it before its first step

    # Only the first process comes here, so no other is to be waited for.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="alone"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        yield checkpointer, ocp.args


def _save(path: Path, tree: Tree) -> None:
    tree = jax.tree.map(np.asarray, tree)  # older Orbax takes no NumPy scalars
    with _orbax() as (checkpointer, args):
        checkpointer.save(path.absolute(), args=args.StandardSave(tree))


def _read(path: Path, like: Tree | None) -> Tree:
    like = like and jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    with _orbax() as (checkpointer, args):
        tree = checkpointer.restore(path.absolute(), args=args.StandardRestore(like))
    if like and _types(tree) != _types(like):
        raise ValueError("its arrays are of other shapes or types")
    return tree


def _types(tree: Tree) -> list[tuple[tuple[int, ...], np.dtype]]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _hashes(path: Path) -> dict[str, tuple[int, str]]:
    files = sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        _sync(file)
    return {p.relative_to(path).as_posix(): (p.stat().st_size, _hash(p)) for p in files}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Waits until a file or the names in a folder are on the disk: a machine may go down as suddenly as a process."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_aside(path: Path) -> None:
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    path.rename(aside)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
