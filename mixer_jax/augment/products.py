"""The operations for a whole batch on a TPU, as matrix products.

A TPU gathers and scatters single pixels one by one, but multiplies matrices fast. Images are planes, (channels, batch,
pixels) int32 grey levels, row by row. These functions suit images of up to a few hundred pixels per side. Products of
grey levels with one-hot matrices are exact in bfloat16. Every operation is computed for every image, so that no loop
depends on the draw. The results equal those of `color` and `geometry`, bit for bit.
"""

import functools

import jax
import jax.numpy as jnp

from mixer_jax.augment import color
from mixer_jax.augment.geometry import sources

BLOCK = 2**20  # the most values per image that a warp holds at a time


def warp(planes: jax.Array, coefficients: jax.Array, height: int, width: int) -> jax.Array:
    """Transform images as `geometry.warp` does, each with its coefficients (batch, 6).

    For each new pixel, a product with a one-hot matrix selects the old column, and a masked sum the old row.
    """
    channels, batch, _ = planes.shape
    images = planes.reshape(channels, batch, height, width).astype(jnp.bfloat16)

    def of_block(places: tuple[jax.Array, jax.Array]) -> jax.Array:
        from_x, from_y = places  # (batch, pixels)
        columns = jax.nn.one_hot(from_x, width, dtype=jnp.bfloat16, axis=1)
        there = from_y[:, None] == jnp.arange(height)[None, :, None]

        def of_plane(plane: jax.Array) -> jax.Array:
            taken = jnp.einsum("bhw,bwp->bhp", plane, columns, preferred_element_type=jnp.float32)
            return jnp.sum(jnp.where(there, taken, 0), axis=1)

        return jnp.stack([of_plane(plane) for plane in images]).astype(jnp.int32)

    from_x, from_y = jax.vmap(lambda each: sources(each, height, width))(coefficients)  # (batch, height, width)
    rows = max(
        n for n in range(1, height + 1) if height % n == 0 and (n == 1 or channels * height * width * n <= BLOCK)
    )
    if rows == height:
        return of_block((from_x.reshape(batch, -1), from_y.reshape(batch, -1)))
    blocks = [places.reshape(batch, -1, rows * width).swapaxes(0, 1) for places in (from_x, from_y)]
    return jnp.moveaxis(jax.lax.map(of_block, tuple(blocks)), 0, 2).reshape(planes.shape)


def even_out(planes: jax.Array, equalize: jax.Array) -> jax.Array:
    """Apply Equalize to the images for which `equalize` (batch,) is true, and AutoContrast to the others.

    Histograms and table lookups are matrix products with one-hot encodings of the two hexadecimal digits of each level.
    """
    high, low = (jax.nn.one_hot(digit, 16, dtype=jnp.bfloat16, axis=2) for digit in (planes >> 4, planes & 15))
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    counts = product("cbhp,cblp->cbhl", high, low).astype(jnp.int32).reshape(-1, 256)
    chosen = jnp.tile(equalize, len(planes))[:, None]
    tables = jnp.where(chosen, color.equalize_table(counts), color.autocontrast_table(counts))
    tables = tables.reshape(*planes.shape[:2], 16, 16).astype(jnp.bfloat16)
    return jnp.sum(high * product("cbhl,cblp->cbhp", tables, low), axis=2).astype(jnp.int32)
