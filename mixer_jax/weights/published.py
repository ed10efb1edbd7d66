"""Mixers by name: those that come with the package, and those that others have published.

Sources: the buckets named in the README of google-research/vision_transformer, and the model configs of timm 1.0.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from mixer_jax.errors import UserError, did_you_mean

# The trained models that come with the package, each a file beside its model card.
SHIPPED = {file.stem: file for file in sorted(Path(__file__).parent.glob("shipped_models/*.safetensors"))}
# The paper's models, by folder of its bucket.
OF_PAPER = {
    "imagenet21k": ("B/16", "L/16"),
    "imagenet1k": ("B/16", "L/16"),
    "sam": ("B/16", "B/32"),
    "gsam": ("S/8", "S/16", "S/32", "B/16", "B/32"),
}
# timm's models, each with its file on GitHub, under an earlier name that ends with the first digits of its SHA-256.
OF_TIMM = {
    "mixer_b16_224.goog_in21k": "v0.1-vitjx/jx_mixer_b16_224_in21k-617b3de2.pth",
    "mixer_b16_224.goog_in21k_ft_in1k": "v0.1-vitjx/jx_mixer_b16_224-76587d61.pth",
    "mixer_l16_224.goog_in21k": "v0.1-vitjx/jx_mixer_l16_224_in21k-846aa33c.pth",
    "mixer_l16_224.goog_in21k_ft_in1k": "v0.1-vitjx/jx_mixer_l16_224-92f9adc4.pth",
    "mixer_b16_224.miil_in21k": "v0.1-tresnet/mixer_b16_224_miil_in21k-2a558a71.pth",
    "mixer_b16_224.miil_in21k_ft_in1k": "v0.1-tresnet/mixer_b16_224_miil-9229a591.pth",
}
GITHUB = "https://github.com/rwightman/pytorch-image-models/releases/download/"


@dataclasses.dataclass(frozen=True)
class Published:
    """A published Mixer for colour images of 224x224 pixels.

    Attributes:
      source: where it is; see `download`.
      sha256: the first digits of the file's checksum; "" if none is published.
      mean, std: of every channel, for pixels in [0, 1]; see `inference.Preprocessing`.
      resize: the filter that scales images for evaluation, after which the central 7/8 of each side is kept.
    """

    source: str
    sha256: str = ""
    mean: float = 0.5
    std: float = 0.5
    resize: str = "bicubic"


PUBLISHED = {
    f"{variant} {bucket}": Published(f"gs://mixer_models/{bucket}/Mixer-{variant.replace('/', '_')}.npz")
    for bucket, variants in OF_PAPER.items()
    for variant in variants
}
for _name, _file in OF_TIMM.items():
    _prepared: dict[str, Any] = {"mean": 0.0, "std": 1.0, "resize": "bilinear"} if "miil" in _name else {}
    _earlier, _sha256 = _file.split("/")[1].removeprefix("jx_").removesuffix(".pth").split("-")
    PUBLISHED[f"timm/{_name}"] = Published(f"hf-hub:timm/{_name}", **_prepared)
    PUBLISHED[_earlier] = Published(GITHUB + _file, _sha256, **_prepared)


def published(name: str) -> Published | None:
    """Return what a name stands for, whatever its capitals and separators; None for a name that is not published."""
    by_name = {_plain(known): x for known, x in PUBLISHED.items()}
    name = _plain(name.removeprefix("hf-hub:").removeprefix("hf_hub:"))
    return by_name.get(name) or by_name.get(f"timm {name}")


def unknown(name: str) -> UserError:
    """Return the error for a name that is neither a path nor the name of published weights."""
    names = [*SHIPPED, *PUBLISHED]
    return UserError(
        f"there is no run directory or file {name}, and no published Mixer of that name{did_you_mean(name, names)}; "
        f"valid names: {', '.join(names)}, and hf-hub:OWNER/NAME"
    )


def of_file(name: str) -> Published | None:
    """Return the published weights whose file has this name and a known checksum; None if there are none."""
    return next((x for x in PUBLISHED.values() if x.sha256 and x.source.endswith(f"/{name}")), None)


def _plain(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))
