"""Mixer sizes by name: those of the paper's table 1 ("B/16"), and smaller ones for small images ("Nano/4").

The part before the slash is the size, and the number after it is the patch size in pixels. A size can be combined with
any patch size that divides the image. `PAPER_VARIANTS` lists the paper's own pairs.
"""

import math
from collections.abc import Iterable

from mixer_jax.errors import UserError, one_of

FIELDS = ("num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim")  # of `MlpMixer`, as in a row of SIZES
SIZES = {
    # From the paper's table 1.
    "S": (8, 512, 256, 2048),
    "B": (12, 768, 384, 3072),
    "L": (24, 1024, 512, 4096),
    "H": (32, 1280, 640, 5120),
    # For small images; Nano is the published CIFAR-10 model of omihub777/MLP-Mixer-CIFAR.
    "Pico": (4, 64, 64, 256),
    "Nano": (8, 128, 64, 512),
    "Tiny": (8, 256, 128, 1024),
}
PATCHES = 64  # per image, where the patch size is not given
PAPER_VARIANTS = ("S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14")


def patch_size_for(height: int, width: int) -> int:
    """Return the side in pixels of square patches that tile an image; their number is as close to 64 as possible."""
    sides = (side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0)
    return min(sides, key=lambda side: abs(math.log(height * width / side**2 / PATCHES)))


def variant(name: str, others: Iterable[str] = ()) -> dict[str, int]:
    """Return the `MlpMixer` arguments of a variant.

    Args:
      name: size and patch size, such as "B/16".
      others: further valid names, to list in the error message.

    Raises:
      UserError: if the size is unknown or the patch size is not a positive integer.
    """
    size, slash, patch = name.partition("/")
    if size not in SIZES:
        raise one_of("model variant", name, [*PAPER_VARIANTS, *(f"{s}/P" for s in SIZES), *others])
    if not slash or not patch.isdecimal() or int(patch) == 0:
        raise UserError(f"model variant {name!r} needs a patch size in pixels, such as '{size}/4'")
    return {"patch_size": int(patch), **dict(zip(FIELDS, SIZES[size], strict=True))}
