"""Reading the checkpoint from which a run resumes, on all processes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixer_jax.checkpoints import Checkpoint, Checkpoints, Damaged
from mixer_jax.errors import UserError
from mixer_jax.records import Epoch
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.epoch import Sums
from mixer_jax.training.processes import from_first, on_first
from mixer_jax.training.step import TrainState
from mixer_jax.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Progress:
    """The content of a checkpoint apart from its arrays.

    Attributes:
      history: the epochs so far.
      sums: the metrics of the unfinished epoch.
      ran_on: `Trainer.runs_on` of the process that wrote the checkpoint.
    """

    history: list[Epoch]
    sums: Sums
    ran_on: dict[str, Any]

    def to_json(self, step: int) -> dict[str, Any]:
        """Return the progress after `step` steps as a `Checkpoint.progress`."""
        history = [epoch.to_json() for epoch in self.history]
        return {"step": step, "history": history, "sums": dataclasses.asdict(self.sums), "ran_on": self.ran_on}

    @classmethod
    def of(cls, checkpoint: Checkpoint, directory: Path, seed: int = 0) -> "Progress":
        """Return the progress of a checkpoint; errors name its directory.

        An older release kept several seeds in one checkpoint; `seed` is the index of the seed whose progress is
        returned.

        Raises:
          UserError: if the checkpoint was not written by mixer_jax.
        """
        progress = checkpoint.progress
        try:
            history = progress["history"] if "history" in progress else progress["histories"][seed]
            sums = dict(progress["sums"])
            if "losses" in sums:
                sums |= {"loss": sums.pop("losses")[seed], "correct": sums["correct"][seed]}
            return cls(list(map(Epoch.from_json, history)), Sums(**sums), progress["ran_on"])
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(f"checkpoint {checkpoint.step} in {directory} was not written by mixer_jax") from error


def newest(checkpoints: Checkpoints, shapes: TrainState, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest intact checkpoint, as the first process reads it; None if there is no checkpoint.

    `shapes` are those of the state. `warn` is called with a line for each damaged checkpoint.

    Raises:
      UserError: if all checkpoints are damaged.
    """
    like, found = Checkpoint(0, shapes, shapes.evaluated, {}), []

    def read() -> dict[str, Any] | None:
        try:
            checkpoint, problems = checkpoints.newest(like)
        except Damaged as error:
            remedy = "no checkpoint is intact; none was deleted; set overwrite to start over"
            raise UserError(f"{error}; {remedy}") from error
        if checkpoint is None:
            return None
        for problem in problems:
            warn(f"{problem}; resuming from step {checkpoint.step}")
        found.append(checkpoint)
        return {"step": checkpoint.step, "best": checkpoint.best != (), "progress": checkpoint.progress}

    if (what := on_first(read)) is None:
        return None
    if found:  # on the first process
        state, best = found[0].state, found[0].best
    else:
        state, best = jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype), (shapes, shapes.evaluated if what["best"] else ())
        )
    state, best = from_first((state, best))
    return Checkpoint(what["step"], state, best, what["progress"])


def split_checkpoints(
    directory: RunDirectory, runs: Sequence[RunDirectory], trainer: Trainer, warn: Callable[[str], None]
) -> None:
    """Give each seed a checkpoint of its own, if an older release wrote a single checkpoint for all seeds.

    Args:
      directory: the run directory of all seeds.
      runs: the run directory of each seed, in order.
      trainer: provides the shapes of the state of one seed.
      warn: called with a line for each damaged checkpoint.

    Raises:
      UserError: if the shared checkpoint is damaged, or if a seed's own checkpoint cannot be written.
    """
    if on_first(lambda: all(Checkpoints(run.checkpoints).saved_steps() for run in runs)):
        on_first(directory.drop_checkpoints)  # an earlier process may have died after splitting them and before this
        return
    together = Checkpoints(directory.checkpoints)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(runs), *x.shape), x.dtype), trainer.state_shapes)
    found = newest(together, shapes, warn)
    if found is None:
        return

    def split() -> None:
        for i, run in enumerate(runs):
            state, best = jax.tree.map(lambda x, i=i: np.asarray(x[i]), (found.state, found.best))
            progress, step = Progress.of(found, together.directory, i), int(state.step)
            if step < found.step:  # this seed had stopped early
                progress = dataclasses.replace(progress, sums=Sums())
            mine = Checkpoints(run.checkpoints)
            try:
                mine.save(Checkpoint(step, state, best, progress.to_json(step)))
                mine.wait()
            except OSError as error:
                raise UserError(f"{error}; run the same command again to resume") from error
            finally:
                mine.close()
        directory.drop_checkpoints()

    on_first(split)


def differences(there: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each difference in hardware or software that can change the last bits of a result.

    Args:
      there, here: the `Trainer.runs_on` of an earlier process and of this one.
    """
    there, here = there | there["versions"], here | here["versions"]
    for key in ("platform", "device_kind", "devices", "dtype", "jax", "jaxlib"):
        if there.get(key) != here[key]:
            yield f"{key}: was {there.get(key)}, now {here[key]}"
