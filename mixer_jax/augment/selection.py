"""A branch that is worth taking under `vmap`: computed only for those examples of a batch that take it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

PART = 8  # examples that are computed at a time


def only_where(taken: jax.Array, function: Callable[..., jax.Array], x: jax.Array, *arguments: jax.Array) -> jax.Array:
    """Returns `function(x, *arguments)` where `taken`, a bool, says so, and elsewhere `x`.

    Under `vmap` the examples that take the branch are gathered, and computed some at a time: the cost is that of as
    many as there are, and not of the whole batch.

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
        order, count = jnp.argsort(~taken, stable=True), taken.sum()
        part = min(PART, axis_size)

        def compute(carry):
            start, result = carry
            # The last part may reach back to examples computed before: it does no harm, they are read from `arrays`.
            chosen = jax.lax.dynamic_slice_in_dim(order, start, part)
            x, *rest = (array[chosen] for array in arrays)
            mask = taken[chosen].reshape(-1, *(1,) * (x.ndim - 1))
            changed = jnp.where(mask, jax.vmap(function)(x, *rest), x)
            return start + part, result.at[chosen].set(changed, unique_indices=True)

        _, result = jax.lax.while_loop(lambda carry: carry[0] < count, compute, (jnp.zeros_like(count), arrays[0]))
        return result, True

    return branch(taken, x, *arguments)
