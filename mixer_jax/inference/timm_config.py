"""The config.json that timm and the Hugging Face Hub keep beside a model's weights."""

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from mixer_jax.data import RESIZES
from mixer_jax.errors import Unreadable, UserError, in_one_line, printable
from mixer_jax.inference.preprocessing import Preprocessing
from mixer_jax.models import MlpMixer, variant

CONFIG_FILE = "config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # timm's defaults
# By variant, timm's names of the Mixers that it creates by name.
ARCHITECTURES = {f"{size}/{patch}": f"mixer_{size.lower()}{patch}_224" for size in "SBL" for patch in (16, 32)}
RATIOS = [0.5, 4.0]  # the widths of the token and channel MLPs of these Mixers, divided by hidden_dim


@dataclasses.dataclass(frozen=True)
class TimmConfig:
    """The input of a Mixer from timm, and how timm prepares images for evaluating it.

    Attributes:
      image_size: (height, width) of the input.
      channels: of the input.
      mean, std: of each channel, for pixels in [0, 1].
      resize: how images are brought to `image_size`, as in `Preprocessing`.
      label_names: the class names; () if they are unknown.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    label_names: tuple[str, ...] = ()


def read_config(file: Path) -> TimmConfig | None:
    """Read a config.json; return None if it is not timm's.

    Raises:
      UserError: if the file cannot be read, or describes a model other than a Mixer, or settings that are
        not supported.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
        if "architecture" not in config:
            if kind := config.get("model_type"):
                raise UserError(f"{file} describes a {printable(str(kind))}, not a Mixer of timm")
            return None
        if not str(config["architecture"]).startswith("mixer_"):
            raise UserError(f"{file} describes a {printable(str(config['architecture']))}, not a Mixer")
        given, arguments = config | (config.get("pretrained_cfg") or {}), config.get("model_args") or {}
        if others := sorted({"act_layer", "block_layer", "mlp_layer", "norm_layer", "stem_norm"} & arguments.keys()):
            raise UserError(f"{file} describes a Mixer with its own {others[0]}, which is not supported")
        channels, *size = given.get("input_size") or (3, 224, 224)
        size = arguments.get("img_size") or size
        height, width = (size, size) if isinstance(size, int) else size
        channels = int(arguments.get("in_chans") or channels)
        filter_, mode = given.get("interpolation") or "bicubic", given.get("crop_mode") or "center"
        crop = float(given.get("crop_pct") or 0.875)
        if filter_ not in RESIZES or not 0 < crop <= 1 or mode != "center":
            how = f"interpolation {filter_!r}, crop_pct {crop} and crop_mode {mode!r}"
            raise UserError(f"{file}: {how} are not supported")
        names = given.get("label_names") or config.get("label_names") or config.get("id2label") or ()
        if isinstance(names, dict):  # from the numbers of the classes, as strings
            names = [names[str(i)] for i in range(len(names)) if str(i) in names]
        names = list(map(str, names))
        again = {name for name, count in Counter(names).items() if count > 1}  # as "crane" in ImageNet
        names = [f"{name} ({i})" if name in again else name for i, name in enumerate(names)]
        return TimmConfig(
            (int(height), int(width)),
            channels,
            tuple(map(float, given.get("mean") or IMAGENET_MEAN)),
            tuple(map(float, given.get("std") or IMAGENET_STD)),
            filter_ if crop == 1 else f"{filter_}/{crop}",
            tuple(names),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"cannot read {file}: {printable(in_one_line(error))[:200]}") from error


def architecture(model: MlpMixer) -> str:
    """Return the name by which timm creates a Mixer of these sizes; "" if it has none."""
    fixed = ("patch_size", "num_blocks", "hidden_dim")
    alike = (name for name in ARCHITECTURES if all(getattr(model, key) == variant(name)[key] for key in fixed))
    return ARCHITECTURES.get(next(alike, ""), "")


def config_of(model: MlpMixer, preprocessing: Preprocessing, label_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of a config.json from which timm rebuilds a Mixer and its preprocessing.

    For Mixers that timm does not create by name, `model_args` are the arguments of its class MlpMixer.
    """
    height, width = preprocessing.input_size or preprocessing.image_shape[:2]
    channels, (filter_, _, crop) = preprocessing.image_shape[2], preprocessing.resize.partition("/")
    arguments: dict[str, Any] = {"img_size": [height, width], "in_chans": channels}
    ratios = [_ratio(mlp_dim, model.hidden_dim) for mlp_dim in (model.tokens_mlp_dim, model.channels_mlp_dim)]
    if ratios != RATIOS:
        arguments["mlp_ratio"] = ratios
    name = architecture(model)
    if not name:
        arguments |= {"patch_size": model.patch_size, "num_blocks": model.num_blocks, "embed_dim": model.hidden_dim}
    return {
        "architecture": name or "mixer_s16_224",
        "num_classes": len(label_names),
        "num_features": model.hidden_dim,
        "global_pool": "avg",
        "model_args": arguments,
        "label_names": list(label_names),
        "pretrained_cfg": {
            "input_size": [channels, height, width],
            "fixed_input_size": True,
            "interpolation": "bilinear" if filter_ == "fit" else filter_,
            "crop_pct": preprocessing.eval_crop * float(crop or 1),
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
