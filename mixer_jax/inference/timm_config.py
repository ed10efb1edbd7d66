"""The config.json that timm and the Hugging Face Hub keep beside a model's weights."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from mixer_jax.data import RESIZES
from mixer_jax.errors import UserError
from mixer_jax.inference.preprocessing import Preprocessing
from mixer_jax.models import MlpMixer

CONFIG_FILE = "config.json"
# The Mixers that timm creates by name.
ARCHITECTURES = {f"{size}/{patch}": f"mixer_{size.lower()}{patch}_224" for size in "SBL" for patch in (16, 32)}


@dataclasses.dataclass(frozen=True)
class TimmConfig:
    """The input of a Mixer of timm, and how timm prepares images for its evaluation.

    Attributes:
      image_size: (height, width) of the input.
      channels: of the input.
      mean, std: of each channel, as fractions of 255.
      crop: images are scaled to cover `image_size` divided by this fraction, then the centre is cropped.
      resize: the filter for that, a key of `mixer_jax.data.RESIZES`.
      label_names: the class names; () if they are unknown.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    resize: str
    label_names: tuple[str, ...] = ()

    def preprocessing(self, image_shape: tuple[int, int, int]) -> Preprocessing:
        """Return the preprocessing for an input of (height, width, channels)."""
        height, width, channels = image_shape
        mean, std = ((x * channels if len(x) == 1 else x) for x in (self.mean, self.std))
        if self.crop == 1:
            return Preprocessing(image_shape, mean, std, resize=self.resize)
        scaled = (math.floor(height / self.crop), math.floor(width / self.crop), channels)
        return Preprocessing(scaled, mean, std, (height, width), height / scaled[0], self.resize)


def read_config(file: Path) -> TimmConfig | None:
    """Read a config.json; return None if it is not one of timm.

    Raises:
      UserError: if the file cannot be read, or describes a model other than a Mixer.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if "architecture" not in config:
            if kind := config.get("model_type"):
                raise UserError(f"{file} describes a {kind}, not a Mixer of timm")
            return None
        if not str(config["architecture"]).startswith("mixer_"):
            raise UserError(f"{file} describes a {config['architecture']}, not a Mixer")
        given = config | config.get("pretrained_cfg", {})
        channels, height, width = map(int, given.get("input_size") or (3, 224, 224))
        resize, mode = given.get("interpolation") or "bicubic", given.get("crop_mode") or "center"
        if resize not in RESIZES or mode != "center":
            raise UserError(f"{file}: interpolation {resize} and crop_mode {mode} are not known here")
        arguments = config.get("model_args") or {}
        return TimmConfig(
            (height, width),
            int(arguments.get("in_chans", channels)),
            tuple(map(float, given.get("mean") or (0.5,) * channels)),
            tuple(map(float, given.get("std") or (0.5,) * channels)),
            float(given.get("crop_pct") or 0.875),
            resize,
            tuple(map(str, given.get("label_names") or ())),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {file}: {next(iter(str(error).splitlines()), 'it is damaged')}") from error


def config_of(
    model: MlpMixer, preprocessing: Preprocessing, variant: str, label_names: tuple[str, ...]
) -> dict[str, Any]:
    """Return the content of a config.json from which timm rebuilds a Mixer and its preprocessing.

    timm creates only the variants in `ARCHITECTURES` by name. For the others, `model_args` are the arguments of its
    class MlpMixer.
    """
    height, width = preprocessing.input_size or preprocessing.image_shape[:2]
    channels = preprocessing.image_shape[2]
    arguments: dict[str, Any] = {"img_size": [height, width], "in_chans": channels}
    if variant not in ARCHITECTURES:
        arguments |= {
            "patch_size": model.patch_size,
            "num_blocks": model.num_blocks,
            "embed_dim": model.hidden_dim,
            "mlp_ratio": [_ratio(width, model.hidden_dim) for width in (model.tokens_mlp_dim, model.channels_mlp_dim)],
        }
    return {
        "architecture": ARCHITECTURES.get(variant, "mixer_s16_224"),
        "num_classes": len(label_names),
        "num_features": model.hidden_dim,
        "global_pool": "avg",
        "model_args": arguments,
        "label_names": list(label_names),
        "pretrained_cfg": {
            "input_size": [channels, height, width],
            "fixed_input_size": True,
            "interpolation": "bilinear" if preprocessing.resize == "fit" else preprocessing.resize,
            "crop_pct": height / preprocessing.image_shape[0],
            "crop_mode": "center",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "num_classes": len(label_names),
            "pool_size": None,
            "first_conv": "stem.proj",
            "classifier": "head",
        },
    }


def _ratio(width: int, hidden_dim: int) -> float:
    ratio = width / hidden_dim
    return ratio if int(ratio * hidden_dim) == width else math.nextafter(ratio, math.inf)  # timm rounds down
