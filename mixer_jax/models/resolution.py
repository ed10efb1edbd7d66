"""Adapt a trained Mixer to images of another size.

The weights of the token-mixing MLPs belong to positions in the grid of patches, so they have to change with the grid.
"""

from typing import Any

import jax
import numpy as np

Grid = tuple[int, int]


def tiled(params: Any, grid: Grid, copies: Grid) -> Any:
    """Return the parameters of a Mixer for a larger grid of patches, made of tiles (paper, appendix C).

    Each tile has the size of the old grid and is mixed separately, as before. So the matrices become block-diagonal,
    and the hidden width grows by a factor of `copies[0] * copies[1]`. The paper orders the tokens tile by tile. Here,
    the tokens stay in raster order, and those rows and columns of the matrices that stand for tokens are permuted to
    match.

    Args:
      params: the parameters of an `MlpMixer`.
      grid: the numbers of rows and columns of patches that `params` expect.
      copies: the numbers of tiles down and across the larger grid.

    Returns:
      The parameters for a grid of (grid[0] * copies[0], grid[1] * copies[1]).
    """
    (row_tile, row), (column_tile, column) = (np.divmod(np.arange(g * c), g) for g, c in zip(grid, copies, strict=True))
    tile = (row_tile[:, None] * copies[1] + column_tile).reshape(-1)  # of each token of the larger grid
    place = (row[:, None] * grid[1] + column).reshape(-1)  # of the token in its tile
    num_tiles = copies[0] * copies[1]
    own = tile == np.arange(num_tiles)[:, None]

    def larger(kernel_in, bias_in, kernel_out, bias_out):
        kernel_in = np.where(own.T[:, :, None], kernel_in[place][:, None], 0).reshape(len(tile), -1)
        kernel_out = np.where(own[:, None], kernel_out[:, place], 0).reshape(-1, len(tile))
        return kernel_in, np.tile(bias_in, num_tiles), kernel_out, bias_out[place]

    return _of_token_mixing(params, larger)


def interpolated(params: Any, grid: Grid, new_grid: Grid) -> Any:
    """Return the parameters of a Mixer for another grid of patches, with the token weights interpolated along the grid.

    This method is not from the paper. The interpolation is bilinear, and antialiased where the grid becomes coarser.
    The number of hidden units does not change. Their input weights are scaled so that the sums over the tokens keep
    their magnitude.

    Args:
      params: the parameters of an `MlpMixer`.
      grid: the numbers of rows and columns of patches that `params` expect.
      new_grid: those that the result expects.
    """

    def resized(x):  # (tokens, ...)
        shape = (*new_grid, *x.shape[1:])
        return np.asarray(jax.image.resize(x.reshape(*grid, *x.shape[1:]), shape, "linear")).reshape(-1, *x.shape[1:])

    share = np.float32(np.prod(grid) / np.prod(new_grid))

    def other(kernel_in, bias_in, kernel_out, bias_out):
        return share * resized(kernel_in), bias_in, resized(kernel_out.T).T, resized(bias_out)

    return _of_token_mixing(params, other)


def _of_token_mixing(params, change):
    """Apply `change` to the kernels and biases of both dense layers of each token-mixing MLP; return all parameters."""
    changed = dict(params)
    for name, block in params.items():
        if "token_mixing" in block:
            layers = [block["token_mixing"][f"Dense_{i}"] for i in range(2)]
            arrays = change(*(np.asarray(layer[key]) for layer in layers for key in ("kernel", "bias")))
            first, second = (dict(zip(("kernel", "bias"), pair, strict=True)) for pair in (arrays[:2], arrays[2:]))
            changed[name] = block | {"token_mixing": {"Dense_0": first, "Dense_1": second}}
    return changed
