"""Branches and look-ups under `vmap`, where each example of a batch takes its own.

A TPU gathers slowly, and XLA cannot plan a loop whose length the data decide: there both are masked.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

PART = 8  # examples that are computed at a time


def only_where(taken: jax.Array, function: Callable[..., jax.Array], x: jax.Array, *arguments: jax.Array) -> jax.Array:
    """Returns `function(x, *arguments)` where `taken`, a bool, says so, and elsewhere `x`.

    Under `vmap` the examples that take the branch are gathered, and computed some at a time: the cost is that of as
    many as there are, and not of the whole batch. On a TPU it is computed for all.

    Args:
      taken: bool scalar.
      function: to an array of the shape and type of `x`.
      x: any array.
      arguments: what else the function gets, arrays.
    """

    @jax.custom_batching.custom_vmap
    def branch(taken, x, *arguments):
        return jax.lax.cond(taken, function, lambda x, *_: x, x, *arguments)

    @branch.def_vmap
    def batched(axis_size, in_batched, taken, *arrays):
        taken, *arrays = (
            jnp.asarray(array) if is_batched else jnp.broadcast_to(array, (axis_size, *jnp.shape(array)))
            for array, is_batched in zip((taken, *arrays), in_batched, strict=True)
        )

        def of_all(taken, x, *rest):
            return jnp.where(taken.reshape(-1, *(1,) * (x.ndim - 1)), jax.vmap(function)(x, *rest), x)

        def of_takers(taken, *arrays):
            order, count = jnp.argsort(~taken, stable=True), taken.sum()
            part = min(PART, axis_size)

            def compute(carry):
                start, result = carry
                # The last part may reach back to examples computed before: no harm, they are read from `arrays`.
                chosen = jax.lax.dynamic_slice_in_dim(order, start, part)
                changed = of_all(taken[chosen], *(array[chosen] for array in arrays))
                return start + part, result.at[chosen].set(changed, unique_indices=True)

            start = jnp.zeros_like(count), arrays[0]
            return jax.lax.while_loop(lambda carry: carry[0] < count, compute, start)[1]

        return jax.lax.platform_dependent(taken, *arrays, tpu=of_all, default=of_takers), True

    return branch(taken, x, *arguments)


def row(table: np.ndarray, index: jax.Array) -> jax.Array:
    """Return one row of a table (n, k) int32; on a TPU by a masked sum, as it gathers slowly under `vmap`."""

    def masked_sum(table, index):
        return jnp.sum(jnp.where(jnp.arange(len(table))[:, None] == index, table, 0), axis=0)

    return jax.lax.platform_dependent(
        jnp.asarray(table), index, tpu=masked_sum, default=lambda table, index: table[index]
    )
