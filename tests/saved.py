"""Checkpoints of made-up states."""

import jax
import numpy as np

from mixer_jax.checkpoints import Checkpoint, Checkpoints

RNG = np.random.default_rng(0)


def made(step):
    state = {"params": {"kernel": RNG.normal(size=(64, 32)).astype(np.float32)}, "step": np.int32(step)}
    return Checkpoint(step, jax.tree.map(np.asarray, state), {"kernel": state["params"]["kernel"]}, {"step": step})


def write(directory, *steps):
    checkpoints = Checkpoints(directory)
    written = [made(step) for step in steps]
    for checkpoint in written:
        checkpoints.save(checkpoint)
    checkpoints.wait()
    checkpoints.close()
    return written


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, (one.state, one.best), (other.state, other.best)))
