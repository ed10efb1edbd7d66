"""Makes of a program of one seed one of several: side by side on an accelerator, in threads on a CPU.

The programs are those of `Steps`, of (state, resident, chunk, num_steps). Of several seeds the state has a leading axis
of them, and so has what comes out; the chunk and the number of steps have one where `own_steps` says so.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def side_by_side(function: Callable, own_steps: bool) -> Callable:
    """One program, still to be compiled: an accelerator is not filled by a small model alone."""

    def of_all(state: Any, resident: Any, chunk: Any, num_steps: jax.Array) -> Any:
        axis = 0 if own_steps else None
        return jax.vmap(function, in_axes=(0, None, axis, axis))(state, resident, chunk, num_steps)

    return of_all


def on_cores(program: Callable, num_seeds: int, own_steps: bool, at_once: int) -> Callable:
    """The compiled program of one seed, run for each, so many `at_once`; what comes out is done, and on the host.

    While one has nothing to do for all cores, as where a small product is shared out, another has.
    """

    def of_all(state: Any, resident: Any, chunk: Any, num_steps: np.ndarray) -> Any:
        def of_one(i: int) -> Any:
            mine, its_chunk, its_steps = jax.tree.map(lambda x: np.asarray(x)[i], state), chunk, num_steps
            if own_steps:  # behind the axis of local devices
                its_chunk, its_steps = jax.tree.map(lambda x: x[:, i], chunk), num_steps[i]
            return jax.block_until_ready(program(mine, resident, its_chunk, its_steps))

        # No steps are taken to compile: once, not in every thread.
        with ThreadPoolExecutor(at_once if np.any(num_steps) else 1) as pool:
            return jax.tree.map(lambda *each: np.stack(each), *pool.map(of_one, range(num_seeds)))

    return of_all
