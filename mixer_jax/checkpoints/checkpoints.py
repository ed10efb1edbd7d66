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
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixer_jax import storage
from mixer_jax.checkpoints.files import Damaged, Tree, first_line, hashes, read_arrays, save_arrays, verify
from mixer_jax.errors import UserError

KEPT = 2  # the newest, and one to fall back on
ROOM = 2**20  # bytes that names and metadata may take beside the arrays


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
        self._remarks: list[str] = []
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: concurrent.futures.Future | None = None

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, damaged or not, in order."""
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(int(p.name) for p in found if p.name.isdecimal() and p.is_dir())

    def save(self, checkpoint: Checkpoint) -> None:
        """Starts to write a checkpoint, whose arrays stay as they are; when it is whole, drops all but the newest.

        `wait` for the one before first.
        """
        progress = json.dumps(checkpoint.progress)  # now: the run goes on with it
        self._writing = self._writer.submit(self._write, checkpoint, progress)

    def wait(self) -> list[str]:
        """Return when everything is on disk, with what is to be said of it though it is safe, a line each.

        Raises:
          OSError: if the checkpoint could not be written, or holds parameters that are no numbers; it left no trace.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
        remarks, self._remarks = self._remarks, []
        return remarks

    def require_room(self, state: Tree, best: Tree, copies: int) -> None:
        """Raise `UserError` if the disk has no room for so many checkpoints of such arrays, with those that are there.

        Args:
          state, best: have the shapes and types of what a `Checkpoint` will hold.
          copies: how many.
        """
        needed = copies * _size(state, best)
        folder = next(p for p in (self.directory, *self.directory.absolute().parents) if p.exists())
        mine = sum(file.stat().st_size for file in self.directory.rglob("*") if file.is_file())
        free = shutil.disk_usage(folder).free + mine
        if free < needed:
            raise UserError(
                f"no room for checkpoints in {self.directory}: {copies} take {needed / 2**20:,.1f} MiB, and "
                f"{free / 2**20:,.1f} MiB are free: make room, or choose another --workdir"
            )

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
            state = () if best_alone else read_arrays(path / "state", like and like.state)
            best = read_arrays(path / "best", like and like.best) if (path / "best").exists() else ()
        except Exception as error:  # whatever Orbax and TensorStore raise; nothing of theirs is promised
            raise Damaged(f"checkpoint {path} cannot be read, or is another release's: {first_line(error)}") from error
        return Checkpoint(step, state, best, progress)

    def _write(self, checkpoint: Checkpoint, progress: str) -> None:
        path = self.directory / str(checkpoint.step)
        partial = path.with_name(f"{path.name}.partial")
        try:
            for name in _not_finite(checkpoint.state):
                if not name.startswith("opt_state"):
                    raise ValueError(f"{name} holds NaN or infinity")
                self._remarks.append(f"checkpoint {path}: {name} holds NaN or infinity")
            self._sweep()
            if partial.exists():  # what could not be deleted is in nobody's way
                partial = storage.free_name(self.directory, f"{path.name}.", ".partial")
            partial.mkdir(parents=True)
            self._make_room(_size(checkpoint.state, checkpoint.best))
            save_arrays(partial / "state", checkpoint.state)
            if jax.tree.leaves(checkpoint.best):
                save_arrays(partial / "best", checkpoint.best)
            (partial / "progress.json").write_text(progress)
            (partial / "manifest.json").write_text(json.dumps(hashes(partial), indent=1))
            storage.sync(partial / "manifest.json")
            self._put(partial, path)
        except Exception as error:  # TensorStore's errors are ValueErrors, on a full disk too
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"cannot write checkpoint {path}: {first_line(error)}") from error
        # The new one is safe from here on, whatever becomes of the old ones.
        with contextlib.suppress(OSError):
            storage.sync(self.directory)
        for step in self.steps()[:-KEPT]:
            self._drop(step)
        self._sweep()

    def _put(self, partial: Path, path: Path) -> None:
        """Gives a whole checkpoint its name, which an earlier one of the same step may have."""
        earlier = storage.free_name(self.directory, f"{path.name}.", ".partial")
        if path.exists():  # written again after a resume that went back to an earlier one
            path.rename(earlier)
        try:
            partial.rename(path)
        except OSError:
            if earlier.exists():
                earlier.rename(path)
            raise

    def _make_room(self, needed: int) -> None:
        """Drops older checkpoints, but for the newest, if there is no room for another.

        Finds out that a disk is full before Orbax does, all of whose threads then tell at length.
        """
        for step in [*self.steps()[:-1], None]:
            free = shutil.disk_usage(self.directory).free
            if free >= needed:
                return
            if step is not None:
                self._drop(step)
                self._sweep()
        raise OSError(f"no space left on the device: {free / 2**20:.1f} MiB free, {needed / 2**20:.1f} needed")

    def _drop(self, step: int) -> None:
        # Under its own name a half-deleted one would look damaged.
        try:
            (self.directory / str(step)).rename(self.directory / f"{step}.partial")
        except OSError as error:
            self._remarks.append(f"checkpoint {self.directory / str(step)} cannot be deleted: {error.strerror}")

    def _sweep(self) -> None:
        """Deletes what counts for nothing, as far as it can be."""
        for leftover in self.directory.glob("*.partial"):
            with contextlib.suppress(OSError):
                storage.delete(leftover)


def _not_finite(tree: Tree) -> Iterator[str]:
    """The names of arrays that hold NaN or infinity."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if not np.isfinite(x).all():
            yield jax.tree_util.keystr(path, simple=True, separator="/")


def _size(state: Tree, best: Tree) -> int:
    """The bytes that a checkpoint takes, at most."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state, best))) + ROOM


def _set_aside(path: Path) -> None:
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    path.rename(aside)
