"""The operations for a whole batch on a TPU, as matrix products.

A TPU gathers and scatters single pixels one by one, but multiplies matrices fast. Images are planes, (channels, batch,
pixels) int32 grey levels, row by row. These functions suit images of up to a few hundred pixels per side. Products of
grey levels with one-hot matrices are exact in bfloat16. Every operation is computed for every image, so that no loop
depends on the draw. The results equal those of `color` and `geometry`, bit for bit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.augment import color
from mixer_jax.augment.geometry import one_hot, sources

BLOCK = 2**20  # the most numbers per image that a warp holds at a time


def warp(planes: jax.Array, coefficients: jax.Array, height: int, width: int) -> jax.Array:
    """Transform images as `geometry.warp` does, each with its coefficients (batch, 6).

    A product with a one-hot matrix selects the column of every pixel, and a masked sum selects its row.
    """
    channels, batch, _ = planes.shape
    images = planes.reshape(channels, batch, height, width).astype(jnp.bfloat16)

    def of_block(places: tuple[jax.Array, jax.Array]) -> jax.Array:
        from_x, from_y = places  # (batch, pixels)
        columns = jax.vmap(one_hot, in_axes=(0, None))(from_x, width)
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


def histogram(planes: jax.Array) -> jax.Array:
    """Count the pixels of each grey level, (channels, batch, 256) int32, like `color.histogram`."""
    high, low = (digit.astype(jnp.bfloat16) for digit in _digits(planes))
    counts = jnp.einsum("cbhp,cblp->cbhl", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(*planes.shape[:2], 256).astype(jnp.int32)


def look_up(planes: jax.Array, tables: jax.Array) -> jax.Array:
    """Replace grey levels by their entries in tables (channels, batch, 256), like `color.look_up`."""
    high, low = _digits(planes)
    tables = tables.reshape(*planes.shape[:2], 16, 16).astype(jnp.bfloat16)
    sixteens = jnp.einsum("cbhl,cblp->cbhp", tables, low.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
    return jnp.sum(jnp.where(high, sixteens, 0), axis=2).astype(jnp.int32)


def _digits(planes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the two hexadecimal digits of grey levels, one-hot: each (channels, batch, 16, pixels) bool."""
    return tuple(digit[:, :, None] == np.arange(16).reshape(1, 1, 16, 1) for digit in (planes >> 4, planes & 15))


def even_out(planes: jax.Array, equalize: jax.Array) -> jax.Array:
    """Apply Equalize to the images for which `equalize` (batch,) is true, and AutoContrast to the others."""
    counts = histogram(planes)
    rows = counts.reshape(-1, 256)
    tables = [make(rows).reshape(counts.shape) for make in (color.equalize_table, color.autocontrast_table)]
    return look_up(planes, jnp.where(equalize[None, :, None], *tables))
