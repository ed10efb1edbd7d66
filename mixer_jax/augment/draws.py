"""Random draws that cost one call of the generator each, which a TPU computes in full wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np


def integers(key: jax.Array, shape: tuple[int, ...], bounds: jax.Array | int) -> jax.Array:
    """Draw int32 numbers of a shape, from 0 up to below `bounds`, which are at most 2**16.

    All are equally likely to within bounds / 2**23 of it; `jax.random.randint`, exact, calls the generator four times.
    """
    return (jax.random.uniform(key, shape) * bounds).astype(jnp.int32)


def first_where(condition: jax.Array, values: jax.Array) -> jax.Array:
    """Return the first of the values (n,) of which the condition (n,) holds; without one, the first of all."""
    return jnp.sum(jnp.where(jnp.arange(len(values)) == jnp.argmax(condition), values, 0))


def log_uniform(key: jax.Array, shape: tuple[int, ...], bounds: tuple[float, float]) -> jax.Array:
    """Draw numbers whose logarithm is uniform between the logarithms of the bounds."""
    return jnp.exp(jax.random.uniform(key, shape, minval=np.log(bounds[0]), maxval=np.log(bounds[1])))


def random_place(key: jax.Array, rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw a row below `rows` and a column below `columns`, int32; bounds below 1 count as 1."""
    bounds = jnp.maximum(jnp.stack([jnp.asarray(rows), jnp.asarray(columns)]), 1)
    return tuple(integers(key, (2,), bounds))
