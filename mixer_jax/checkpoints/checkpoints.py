"""Checkpoints: Orbax writes the arrays, and a hash of each file distinguishes intact checkpoints from damaged ones.

checkpoints/1200/            the checkpoint of step 1200; it gets this name only when it is complete
    state/                   the training state: parameters, their moving average, optimiser, step, seed
    best/                    the evaluated parameters of the best epoch so far
    progress.json            the epochs so far, the sums of the unfinished epoch, and the run's hardware and software
    manifest.json            size and SHA-256 of each file
checkpoints/1100/            the checkpoint before, in case 1200 is damaged
checkpoints/1200.1.partial/  a checkpoint being written; 1200.partial/ is one being deleted. The next save deletes both.
checkpoints/1000.damaged1/   a damaged checkpoint, set aside
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixer_jax import storage
from mixer_jax.checkpoints.files import Damaged, Tree, hashes, read_arrays, save_arrays, verify
from mixer_jax.errors import UserError, in_one_line, unreadable

KEPT = 2  # the newest, and one to fall back on
ROOM = 2**20  # bytes allowed for names and metadata, in addition to the arrays


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, from which a run resumes.

    Attributes:
      step: steps done.
      state: the `TrainState`, as host arrays, so that it depends neither on the platform nor on the number of devices;
        () if only the best epoch's parameters were read.
      best: the parameters of the best epoch, as host arrays; () before the first epoch is over.
      progress: everything else, as a JSON object.
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
        self._damaged: set[int] = set()
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: concurrent.futures.Future | None = None

    def saved_steps(self) -> list[int]:
        """Return the steps of the checkpoints in ascending order, without those that `newest` found damaged."""
        try:
            found = list(self.directory.iterdir()) if self.directory.is_dir() else []
        except OSError as error:
            raise unreadable(self.directory, str(error.strerror)) from error
        steps = {int(p.name) for p in found if p.name.isdecimal() and p.is_dir()}
        return sorted(steps - self._damaged)

    def save(self, checkpoint: Checkpoint) -> None:
        """Start to write a checkpoint; once it is complete, all but the `KEPT` newest checkpoints are deleted.

        Call `wait` for the previous checkpoint first.

        Args:
          checkpoint: its arrays must not change until `wait` has returned.
        """
        progress = json.dumps(checkpoint.progress)  # here, because the run will change it
        self._writing = self._writer.submit(self._write, checkpoint, progress)

    def wait(self) -> list[str]:
        """Wait until everything is on disk.

        Returns:
          Messages about problems that do not affect the checkpoint itself.

        Raises:
          OSError: if the checkpoint could not be written, or if its parameters hold NaN or infinity; its files are
            deleted then.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
        remarks, self._remarks = self._remarks, []
        return remarks

    def require_room(self, state: Tree, best: Tree, copies: int, replaced: Sequence[Path] = ()) -> None:
        """Raise `UserError` if the disk has no room for `copies` checkpoints.

        Args:
          state, best: trees with the shapes and dtypes of a checkpoint's `state` and `best`.
          copies: the number of checkpoints.
          replaced: folders of checkpoints that will be replaced, so that their space counts as free.
        """
        needed = copies * _size(state, best)
        disk = next(p for p in (self.directory, *self.directory.absolute().parents) if p.exists())
        files = (file for folder in set(replaced) for file in folder.rglob("*") if file.is_file())
        freed = sum(file.stat().st_size for file in files)
        free = shutil.disk_usage(disk).free + freed
        if free < needed:
            raise UserError(
                f"no room for checkpoints in {self.directory}: {copies} take {needed / 2**20:,.1f} MiB, and "
                f"{free / 2**20:,.1f} MiB are free: make room, or choose another workdir"
            )

    def close(self) -> None:
        """Wait until everything is written, and ignore errors."""
        self._writer.shutdown()

    def newest(
        self, like: Checkpoint | None = None, set_aside: bool = True, best_alone: bool = False
    ) -> tuple[Checkpoint | None, list[str]]:
        """Read the newest intact checkpoint, and set aside the damaged checkpoints that are newer.

        Args:
          like, best_alone: as for `read`.
          set_aside: False leaves the damaged checkpoints where they are.

        Returns:
          The checkpoint, or None if there are no checkpoints; and a line about each damaged checkpoint that is newer.

        Raises:
          Damaged: if all checkpoints are damaged; none is set aside then.
        """
        problems: dict[int, str] = {}
        for step in reversed(self.saved_steps()):
            try:
                checkpoint = self.read(step, like, best_alone)
            except Damaged as error:
                problems[step] = str(error)
                continue
            for damaged in problems if set_aside else ():
                self._damaged.add(damaged)
                aside = storage.free_name(self.directory, f"{damaged}.damaged")
                try:
                    (self.directory / str(damaged)).rename(aside)
                    problems[damaged] += "; set aside"
                except OSError as error:
                    problems[damaged] += f"; cannot be set aside: {error.strerror}"
            return checkpoint, list(problems.values())
        if problems:
            raise Damaged("; ".join(problems.values()))
        return None, []

    def read(self, step: int, like: Checkpoint | None = None, best_alone: bool = False) -> Checkpoint:
        """Read the checkpoint of a step.

        Args:
          step: one of `saved_steps()`.
          like: has the structure, shapes and dtypes of the checkpoint; without it, trees are nested dicts, as on disk.
          best_alone: skip the state, which includes the optimiser's state and is several times as large as `best`.

        Raises:
          Damaged: if the checkpoint is not intact, or does not match `like`.
        """
        path = self.directory / str(step)
        progress = verify(path)
        try:
            state = () if best_alone else read_arrays(path / "state", like and like.state)
            best = read_arrays(path / "best", like and like.best) if (path / "best").exists() else ()
        except Exception as error:  # Orbax and TensorStore promise no types of exceptions
            raise Damaged(
                f"checkpoint {path} cannot be read, or is another release's: {in_one_line(error)[:200]}"
            ) from error
        return Checkpoint(step, state, best, progress)

    def _write(self, checkpoint: Checkpoint, progress: str) -> None:
        path = self.directory / str(checkpoint.step)
        partial = storage.free_name(self.directory, f"{path.name}.", ".partial")
        try:
            for name in not_finite(checkpoint.state):
                if not name.startswith("opt_state"):
                    raise ValueError(f"{name} holds NaN or infinity")
                self._remarks.append(f"checkpoint {path}: {name} holds NaN or infinity")
            self._sweep()
            partial.mkdir(parents=True)
            self._make_room(_size(checkpoint.state, checkpoint.best))
            save_arrays(partial / "state", checkpoint.state)
            if jax.tree.leaves(checkpoint.best):
                save_arrays(partial / "best", checkpoint.best)
            (partial / "progress.json").write_text(progress)
            (partial / "manifest.json").write_text(json.dumps(hashes(partial), indent=1))
            storage.sync(partial / "manifest.json")
            self._put(partial, path)
        except Exception as error:  # TensorStore raises ValueErrors, even for a full disk
            with contextlib.suppress(OSError):
                storage.delete(partial)
            raise OSError(f"cannot write checkpoint {path}: {in_one_line(error)[:200]}") from error
        # From here on the new checkpoint is safe, even if old ones cannot be deleted.
        with contextlib.suppress(OSError):
            storage.sync(self.directory)
        with contextlib.suppress(OSError):
            for step in self.saved_steps()[:-KEPT]:
                self._drop(step)
            self._sweep()

    def _put(self, partial: Path, path: Path) -> None:
        """Rename a complete checkpoint to its final name; first, an earlier one with that name is moved aside."""
        earlier = storage.free_name(self.directory, f"{path.name}.", ".partial")
        if path.exists():  # the run has resumed from an earlier checkpoint and reached this step again
            path.rename(earlier)
        try:
            partial.rename(path)
        except OSError:
            if earlier.exists():
                earlier.rename(path)
            raise
        self._damaged.discard(int(path.name))

    def _make_room(self, needed: int) -> None:
        """Delete old checkpoints, except the newest, until there is room for another.

        If that is not enough, raise OSError before Orbax writes: on a full disk, each of its threads would print a long
        error.
        """
        for step in self.saved_steps()[:-1]:
            if shutil.disk_usage(self.directory).free < needed:
                self._drop(step)
                self._sweep()
        if (free := shutil.disk_usage(self.directory).free) < needed:
            raise OSError(f"no space left on the device: {free / 2**20:.1f} MiB free, {needed / 2**20:.1f} needed")

    def _drop(self, step: int) -> None:
        # Renamed first: a half-deleted checkpoint would look damaged.
        try:
            (self.directory / str(step)).rename(self.directory / f"{step}.partial")
        except OSError as error:
            self._remarks.append(f"checkpoint {self.directory / str(step)} cannot be deleted: {error.strerror}")

    def _sweep(self) -> None:
        """Delete the .partial folders, as far as possible."""
        for leftover in self.directory.glob("*.partial"):
            with contextlib.suppress(OSError):
                storage.delete(leftover)


def not_finite(tree: Tree) -> Iterator[str]:
    """Yield the names of arrays that hold NaN or infinity."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if not np.isfinite(x).all():
            yield jax.tree_util.keystr(path, simple=True, separator="/")


def _size(state: Tree, best: Tree) -> int:
    """Return an upper bound on the size of a checkpoint in bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state, best))) + ROOM
