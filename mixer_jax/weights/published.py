"""The Mixers that others have published, by name.

Sources: the buckets named in the README of google-research/vision_transformer; the model configs and results of timm
1.0; and the accuracies in the MLP-Mixer paper (table 3), for the weights of its own code.
"""

import dataclasses
import re

from mixer_jax.errors import UserError, did_you_mean
from mixer_jax.weights.shipped import shipped_names

PAPER = "gs://mixer_models/{}.npz"
TIMM = "hf-hub:timm/{}"
IMAGENET, IMAGENET_21K, IMAGENET_21K_P = 1000, 21_843, 11_221  # classes


@dataclasses.dataclass(frozen=True)
class Published:
    """A published Mixer for colour images of 224x224 pixels.

    Attributes:
      source: where it is; see `download`.
      variant: its size and patch size.
      num_classes: the width of its head.
      mean, std: of every channel, as fractions of 255; see `inference.Preprocessing`.
      resize: resampling filter for evaluation; then the central 7/8 of each side is kept.
      accuracy: published, top-1 on the validation images of ImageNet, in percent; None where none is published.
      sha256: the first digits of the file's checksum; "" if none is published.
    """

    source: str
    variant: str
    num_classes: int
    mean: float = 0.5
    std: float = 0.5
    resize: str = "bicubic"
    accuracy: float | None = None
    sha256: str = ""


def _of_paper(name: str, num_classes: int = IMAGENET, accuracy: float | None = None) -> Published:
    variant = re.sub(r".*Mixer-(\w)_(\d+)", r"\1/\2", name)
    return Published(PAPER.format(name), variant, num_classes, accuracy=accuracy)


def _of_timm(name: str, variant: str, num_classes: int, accuracy: float | None = None) -> Published:
    other = {"mean": 0.0, "std": 1.0, "resize": "bilinear"} if "miil" in name else {}
    return Published(TIMM.format(name), variant, num_classes, accuracy=accuracy, **other)  # type: ignore[arg-type]


PUBLISHED = {
    "B/16 imagenet21k": _of_paper("imagenet21k/Mixer-B_16", IMAGENET_21K),
    "L/16 imagenet21k": _of_paper("imagenet21k/Mixer-L_16", IMAGENET_21K),
    "B/16 imagenet1k": _of_paper("imagenet1k/Mixer-B_16", accuracy=76.4),
    "L/16 imagenet1k": _of_paper("imagenet1k/Mixer-L_16", accuracy=71.8),
    "B/16 sam": _of_paper("sam/Mixer-B_16"),
    "B/32 sam": _of_paper("sam/Mixer-B_32"),
    "S/8 gsam": _of_paper("gsam/Mixer-S_8"),
    "S/16 gsam": _of_paper("gsam/Mixer-S_16"),
    "S/32 gsam": _of_paper("gsam/Mixer-S_32"),
    "B/16 gsam": _of_paper("gsam/Mixer-B_16"),
    "B/32 gsam": _of_paper("gsam/Mixer-B_32"),
    **{
        x.source.removeprefix("hf-hub:"): x
        for x in (
            _of_timm("mixer_b16_224.goog_in21k", "B/16", IMAGENET_21K),
            _of_timm("mixer_b16_224.goog_in21k_ft_in1k", "B/16", IMAGENET, 76.616),
            _of_timm("mixer_l16_224.goog_in21k", "L/16", IMAGENET_21K),
            _of_timm("mixer_l16_224.goog_in21k_ft_in1k", "L/16", IMAGENET, 72.084),
            _of_timm("mixer_b16_224.miil_in21k", "B/16", IMAGENET_21K_P),
            _of_timm("mixer_b16_224.miil_in21k_ft_in1k", "B/16", IMAGENET, 82.314),
        )
    },
}
# timm's earlier names of its models, with the files that it kept on GitHub. The name of a file ends with the first
# digits of its SHA-256.
GITHUB = "https://github.com/rwightman/pytorch-image-models/releases/download/"
ON_GITHUB = {
    "mixer_b16_224": ("v0.1-vitjx/jx_mixer_b16_224-76587d61.pth", "timm/mixer_b16_224.goog_in21k_ft_in1k"),
    "mixer_b16_224_in21k": ("v0.1-vitjx/jx_mixer_b16_224_in21k-617b3de2.pth", "timm/mixer_b16_224.goog_in21k"),
    "mixer_l16_224": ("v0.1-vitjx/jx_mixer_l16_224-92f9adc4.pth", "timm/mixer_l16_224.goog_in21k_ft_in1k"),
    "mixer_l16_224_in21k": ("v0.1-vitjx/jx_mixer_l16_224_in21k-846aa33c.pth", "timm/mixer_l16_224.goog_in21k"),
    "mixer_b16_224_miil": ("v0.1-tresnet/mixer_b16_224_miil-9229a591.pth", "timm/mixer_b16_224.miil_in21k_ft_in1k"),
    "mixer_b16_224_miil_in21k": ("v0.1-tresnet/mixer_b16_224_miil_in21k-2a558a71.pth", "timm/mixer_b16_224.miil_in21k"),
}
PUBLISHED |= {
    name: dataclasses.replace(PUBLISHED[same], source=GITHUB + file, sha256=file[-12:-4])
    for name, (file, same) in ON_GITHUB.items()
}


def published(name: str) -> Published | None:
    """Return what a name stands for, whatever its capitals and separators; None for a name that is not published."""
    by_name = {_plain(known): x for known, x in PUBLISHED.items()}
    name = _plain(name.removeprefix("hf-hub:").removeprefix("hf_hub:"))
    return by_name.get(name) or by_name.get(f"timm {name}")


def unknown(name: str) -> UserError:
    """Return the error for a name that is neither a path nor that of published weights."""
    names = [*shipped_names(), *PUBLISHED]
    return UserError(
        f"there is no run directory or file {name}, and no published Mixer of that name{did_you_mean(name, names)}; "
        f"valid names: {', '.join(names)}, and hf-hub:OWNER/NAME"
    )


def of_file(name: str) -> Published | None:
    """Return the published weights whose file has this name and a known checksum; None if there are none."""
    return next((x for x in PUBLISHED.values() if x.sha256 and x.source.endswith(f"/{name}")), None)


def _plain(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))
