"""Mixer sizes by name: the paper's table 1 ("B/16"), and smaller ones for small images ("Nano/4").

The part before the slash is the size, the number after it the patch size in pixels. Any size goes with any patch
size that divides the image; the paper's own pairs are listed in `PAPER_VARIANTS`.
"""

import dataclasses

from mixer_jax.errors import UserError, one_of


@dataclasses.dataclass(frozen=True)
class Size:
    """What the paper's table 1 lists for a model, but for the patch size."""

    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int


SIZES = {
    # The paper's, table 1.
    "S": Size(num_blocks=8, hidden_dim=512, tokens_mlp_dim=256, channels_mlp_dim=2048),
    "B": Size(num_blocks=12, hidden_dim=768, tokens_mlp_dim=384, channels_mlp_dim=3072),
    "L": Size(num_blocks=24, hidden_dim=1024, tokens_mlp_dim=512, channels_mlp_dim=4096),
    "H": Size(num_blocks=32, hidden_dim=1280, tokens_mlp_dim=640, channels_mlp_dim=5120),
    # For small images; Nano is the published CIFAR-10 model of omihub777/MLP-Mixer-CIFAR.
    "Pico": Size(num_blocks=4, hidden_dim=64, tokens_mlp_dim=64, channels_mlp_dim=256),
    "Nano": Size(num_blocks=8, hidden_dim=128, tokens_mlp_dim=64, channels_mlp_dim=512),
    "Tiny": Size(num_blocks=8, hidden_dim=256, tokens_mlp_dim=128, channels_mlp_dim=1024),
}
PAPER_VARIANTS = ("S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14")


def variant(name: str) -> dict[str, int]:
    """Returns the `MlpMixer` arguments of a variant such as "B/16".

    Raises:
      UserError: if the size is unknown or the patch size is not a positive integer.
    """
    size, slash, patch = name.partition("/")
    if size not in SIZES:
        raise one_of("model variant", name, [*PAPER_VARIANTS, *(f"{s}/P" for s in SIZES), "MLP", "CNN"])
    if not slash or not patch.isdecimal() or int(patch) == 0:
        raise UserError(f"model variant {name!r} needs a patch size in pixels, such as '{size}/4'")
    return {"patch_size": int(patch), **dataclasses.asdict(SIZES[size])}
