"""Mixer sizes by name: those of the paper's table 1 ("B/16"), and smaller ones for small images ("Nano/4").

The part before the slash is the size, and the number after it is the patch size in pixels. A size can be combined with
any patch size that divides the image. `PAPER_VARIANTS` lists the paper's own pairs.
"""

import dataclasses
import math
from collections.abc import Iterable

from mixer_jax.errors import UserError, one_of


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of a model, as in a column of the paper's table 1, without the patch size.

    Attributes:
      num_blocks, hidden_dim, tokens_mlp_dim, channels_mlp_dim: as in `MlpMixer`.
    """

    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int


SIZES = {
    # From the paper's table 1.
    "S": Size(num_blocks=8, hidden_dim=512, tokens_mlp_dim=256, channels_mlp_dim=2048),
    "B": Size(num_blocks=12, hidden_dim=768, tokens_mlp_dim=384, channels_mlp_dim=3072),
    "L": Size(num_blocks=24, hidden_dim=1024, tokens_mlp_dim=512, channels_mlp_dim=4096),
    "H": Size(num_blocks=32, hidden_dim=1280, tokens_mlp_dim=640, channels_mlp_dim=5120),
    # For small images; Nano is the published CIFAR-10 model of omihub777/MLP-Mixer-CIFAR.
    "Pico": Size(num_blocks=4, hidden_dim=64, tokens_mlp_dim=64, channels_mlp_dim=256),
    "Nano": Size(num_blocks=8, hidden_dim=128, tokens_mlp_dim=64, channels_mlp_dim=512),
    "Tiny": Size(num_blocks=8, hidden_dim=256, tokens_mlp_dim=128, channels_mlp_dim=1024),
}
PATCHES = 64  # per image, where the patch size is not given
PAPER_VARIANTS = ("S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14")


def patch_size_for(height: int, width: int) -> int:
    """Return the side in pixels of square patches that tile an image; their number is as close to 64 as possible.

    Args:
      height, width: of the image, in pixels.
    """
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
    return {"patch_size": int(patch), **dataclasses.asdict(SIZES[size])}
