"""Checkpoints of made-up states."""

import json

import jax
import numpy as np

from mixer_jax.checkpoints import Checkpoint, Checkpoints
from mixer_jax.checkpoints.files import hashes

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


def files(path, part=""):
    """The files of a checkpoint, the largest first."""
    found = [p for p in (path / part).rglob("*") if p.is_file()]
    return sorted(found, key=lambda p: (-p.stat().st_size, p))


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1 << position % 8
    file.write_bytes(content)


def rewrite_manifest(path):
    """Makes the damage look wanted, as somebody who means harm would."""
    (path / "manifest.json").unlink()
    (path / "manifest.json").write_text(json.dumps(hashes(path)))
