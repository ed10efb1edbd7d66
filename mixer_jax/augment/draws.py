"""Random draws that call the generator once each.

On a TPU, the times of all calls add up, because XLA neither merges nor overlaps the calls.
"""

import jax
import jax.numpy as jnp
import numpy as np


def integers(key: jax.Array, shape: tuple[int, ...], bounds: jax.Array | int) -> jax.Array:
    """Draw int32 numbers from 0 to `bounds` - 1.

    All are equally likely, up to a relative error of bounds / 2**23. `jax.random.randint` is less biased, but calls the
    generator several times. The bounds are at most 2**16, and are broadcast to `shape`.
    """
    return (jax.random.uniform(key, shape) * bounds).astype(jnp.int32)


def first_where(condition: jax.Array, values: jax.Array) -> jax.Array:
    """Return the first of `values` (n,) for which `condition` (n,) holds.

    If it holds for none, the first value is returned.
    """
    return jnp.sum(jnp.where(jnp.arange(len(values)) == jnp.argmax(condition), values, 0))


def log_uniform(key: jax.Array, shape: tuple[int, ...], bounds: tuple[float, float]) -> jax.Array:
    """Draw numbers whose logarithm is uniform between the logarithms of the two bounds."""
    return jnp.exp(jax.random.uniform(key, shape, minval=np.log(bounds[0]), maxval=np.log(bounds[1])))


def random_place(key: jax.Array, rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw a row in [0, rows) and a column in [0, columns), int32. Bounds below 1 count as 1."""
    bounds = jnp.maximum(jnp.stack([jnp.asarray(rows), jnp.asarray(columns)]), 1)
    return tuple(integers(key, (2,), bounds))
