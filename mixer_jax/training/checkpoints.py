"""Checkpoints with Orbax: the latest, and those that are still wanted."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mixer_jax.training.parallel import to_host


class _LatestAndWanted(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoint and those of the steps `wanted`."""

    wanted: Collection[int] = ()

    def should_preserve(self, checkpoints, *, context):
        return [c.step in self.wanted or c is checkpoints[-1] for c in checkpoints]


class Checkpoints:
    """The checkpoints of a run, written in the background, numbered by step.

    They hold host arrays, so that they belong to no device count and no platform.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._policy = _LatestAndWanted()
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=ocp.CheckpointManagerOptions(preservation_policy=self._policy)
        )

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps of all checkpoints."""
        return list(self._manager.all_steps())

    def save(self, step: int, state: Any, wanted: Collection[int]) -> None:
        """Starts writing the state of `step`; drops all others but those of the steps `wanted` when it is written."""
        self._policy.wanted = wanted
        self._manager.save(step, args=ocp.args.StandardSave(to_host(state)))

    def restore(self, step: int, like: Any) -> Any:
        """Reads the state of `step` as host arrays; `like` has its structure, shapes and types."""
        like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(like))

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()
