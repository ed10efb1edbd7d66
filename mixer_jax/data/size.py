"""The size that a dataset's images are scaled to: given by the config, or chosen from the images' own sizes."""

from collections.abc import Sequence

import numpy as np

from mixer_jax.errors import UserError

CHOSEN = (-1,)  # the `config.dataset.image_size` that leaves the choice to the images
SIDES = (32, 48, 64)  # of squares; from larger ones, small models learn more slowly
# Images that all have one size keep it if no side is longer than LARGEST pixels, and if patches of some size cut them
# into FEWEST to MOST patches.
LARGEST, FEWEST, MOST = 128, 36, 144


def given_size(image_size: Sequence[int]) -> tuple[int, ...] | None:
    """Return `config.dataset.image_size` as (height, width); () to keep each image's size, None to choose one.

    Raises:
      UserError: if it is not a size.
    """
    return None if tuple(image_size) == CHOSEN else as_size(image_size, "config.dataset.image_size")


def as_size(sides: Sequence[int], field: str) -> tuple[int, ...]:
    """Return (height, width), or () for no sides; raise `UserError`, which names the field, for anything else."""
    if len(sides) > 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise UserError(f"{field}={sides}: give HEIGHT,WIDTH in pixels, or one number")
    return tuple(sides) * 2 if len(sides) == 1 else tuple(sides)


def choose_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the size (height, width) in pixels to scale images to.

    Images that all have one size keep it if no side is longer than `LARGEST`, and if they can be cut into `FEWEST` to
    `MOST` square patches. Otherwise, images become squares. Their side is the largest of `SIDES` to which at least half
    of the images can be scaled without being enlarged, or the smallest of `SIDES` if there is none.
    """
    if not sizes:
        return SIDES[0], SIDES[0]
    height, width = sizes[0]
    sides = (side for side in range(1, min(height, width) + 1) if height % side == width % side == 0)
    fits = max(height, width) <= LARGEST and any(FEWEST <= height * width // side**2 <= MOST for side in sides)
    if fits and all(size == (height, width) for size in sizes):
        return height, width
    median = float(np.median([min(size) for size in sizes]))
    side = max((side for side in SIDES if side <= median), default=SIDES[0])
    return side, side
