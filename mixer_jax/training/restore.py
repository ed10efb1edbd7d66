"""What a run that goes on reads, on all processes."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.training.checkpoint_files import Damaged
from mixer_jax.training.checkpoints import Checkpoint, Checkpoints
from mixer_jax.training.processes import from_first, on_first
from mixer_jax.training.trainer import Trainer


def newest(checkpoints: Checkpoints, trainer: Trainer, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, as the first process reads it; None if there is none.

    Args:
      checkpoints: of the run.
      trainer: for whose state they are.
      warn: is told of each that is damaged.

    Raises:
      UserError: if there are some and none is whole.
    """
    shapes = trainer.state_shapes
    like = Checkpoint(0, shapes, shapes.evaluated, {})
    found = None

    def read() -> dict[str, Any] | None:
        nonlocal found
        try:
            found, problems = checkpoints.newest(like)
        except Damaged as error:
            raise UserError(f"{error}; no checkpoint is whole; none was deleted; --overwrite starts over") from error
        for problem in problems:
            warn(f"{problem}; set aside, going on from step {found.step}")
        return found and {"step": found.step, "best": found.best != (), "progress": found.progress}

    if (what := on_first(read)) is None:
        return None
    arrays = (shapes, shapes.evaluated if what["best"] else ())
    arrays = (found.state, found.best) if found else jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), arrays)
    return Checkpoint(what["step"], *from_first(arrays), what["progress"])


def differences(there: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """What the last bits of a result depend on, beside the config and the data, where it differs."""
    there, here = there | there["versions"], here | here["versions"]
    for key in ("platform", "device_kind", "devices", "dtype", "jax", "jaxlib"):
        if there.get(key) != here[key]:
            yield f"{key} {there.get(key)} there, {here[key]} here"
