"""A branch that saves time under `vmap`: it is computed only for the examples of a batch that take it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

PART = 8  # examples that are computed at a time


def only_where(taken: jax.Array, function: Callable[..., jax.Array], x: jax.Array, *arguments: jax.Array) -> jax.Array:
    """Return `function(x, *arguments)` if `taken` is true, else `x`.

    Under `vmap`, the examples that take the branch are gathered and computed a few at a time. The cost depends on the
    number of these examples, not on the size of the batch.

    Args:
      taken: a bool scalar.
      function: the branch, which returns an array of the shape and dtype of `x`.
      x: any array.
      arguments: the other arguments of `function`, arrays.
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
            # The last part can overlap the one before. That is harmless, because the inputs are read from `arrays`.
            chosen = jax.lax.dynamic_slice_in_dim(order, start, part)
            x, *rest = (array[chosen] for array in arrays)
            mask = taken[chosen].reshape(-1, *(1,) * (x.ndim - 1))
            changed = jnp.where(mask, jax.vmap(function)(x, *rest), x)
            return start + part, result.at[chosen].set(changed, unique_indices=True)

        _, result = jax.lax.while_loop(lambda carry: carry[0] < count, compute, (jnp.zeros_like(count), arrays[0]))
        return result, True

    return branch(taken, x, *arguments)
