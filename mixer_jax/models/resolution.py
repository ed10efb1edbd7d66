"""A trained Mixer for images of another size: its token-mixing MLPs know the place of every patch in their grid."""

from typing import Any

import jax
import numpy as np

Grid = tuple[int, int]


def tiled(params: Any, grid: Grid, copies: Grid) -> Any:
    """A Mixer for a grid of patches that is so many times as large (paper, appendix C).

    Every tile of the larger grid, of the size of the smaller one, is mixed by itself and as before: the matrices become
    block-diagonal, and the hidden width `copies[0] * copies[1]` times as large. The paper lists the tokens tile by
    tile; here they stay in raster order, by which the rows and columns that belong to tokens are permuted.

    Args:
      params: of an `MlpMixer`.
      grid: rows and columns of patches that they are for.
      copies: tiles in a column and in a row of the larger grid.

    Returns:
      The parameters for a grid of (grid[0] * copies[0], grid[1] * copies[1]).
    """
    (row_tile, row), (column_tile, column) = (np.divmod(np.arange(g * c), g) for g, c in zip(grid, copies, strict=True))
    tile = (row_tile[:, None] * copies[1] + column_tile).reshape(-1)  # of each token of the larger grid, and its ...
    place = (row[:, None] * grid[1] + column).reshape(-1)  # ... place therein
    num_tiles = copies[0] * copies[1]
    own = tile == np.arange(num_tiles)[:, None]

    def larger(mlp):
        (kernel_in, bias_in), (kernel_out, bias_out) = (_arrays(mlp[f"Dense_{i}"]) for i in range(2))
        kernel_in = np.where(own.T[:, :, None], kernel_in[place][:, None], 0).reshape(len(tile), -1)
        kernel_out = np.where(own[:, None], kernel_out[:, place], 0).reshape(-1, len(tile))
        return _mlp(kernel_in, np.tile(bias_in, num_tiles), kernel_out, bias_out[place])

    return _of_token_mixing(params, larger)


def interpolated(params: Any, grid: Grid, new_grid: Grid) -> Any:
    """A Mixer for any other grid of patches: the weights of its tokens are interpolated along the grid.

    Not from the paper. Bilinear, and smoothed where the grid becomes coarser; the hidden units stay. What they sum up
    over the tokens stays as large as it was.

    Args:
      params: of an `MlpMixer`.
      grid: rows and columns of patches that they are for.
      new_grid: that they shall be for.
    """

    def resized(x):  # (tokens, ...)
        shape = (*new_grid, *x.shape[1:])
        return np.asarray(jax.image.resize(x.reshape(*grid, *x.shape[1:]), shape, "linear")).reshape(-1, *x.shape[1:])

    share = np.float32(np.prod(grid) / np.prod(new_grid))

    def other(mlp):
        (kernel_in, bias_in), (kernel_out, bias_out) = (_arrays(mlp[f"Dense_{i}"]) for i in range(2))
        return _mlp(share * resized(kernel_in), bias_in, resized(kernel_out.T).T, resized(bias_out))

    return _of_token_mixing(params, other)


def _of_token_mixing(params, change):
    return {
        name: block | {"token_mixing": change(block["token_mixing"])} if "token_mixing" in block else block
        for name, block in params.items()
    }


def _arrays(dense):
    return np.asarray(dense["kernel"]), np.asarray(dense["bias"])


def _mlp(kernel_in, bias_in, kernel_out, bias_out):
    return {"Dense_0": {"kernel": kernel_in, "bias": bias_in}, "Dense_1": {"kernel": kernel_out, "bias": bias_out}}
