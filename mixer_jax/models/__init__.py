"""The models. `create` builds the one that a config describes."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.errors import UserError, one_of
from mixer_jax.models.baselines import BASELINES, Cnn, Mlp
from mixer_jax.models.layers import INITIALIZATIONS
from mixer_jax.models.mixer import GELUS, MixerBlock, MlpBlock, MlpMixer
from mixer_jax.models.variants import PAPER_VARIANTS, SIZES, patch_size_for, variant

__all__ = [
    "PAPER_VARIANTS",
    "SIZES",
    "Cnn",
    "MixerBlock",
    "Mlp",
    "MlpBlock",
    "MlpMixer",
    "Model",
    "create",
    "from_variant",
    "name_of",
    "param_shapes",
    "variant",
]

# The attributes of a Mixer that decide which layers it has, and their sizes.
PARTS = (
    "num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim", "token_mixing", "channel_mixing", "ablated_norm",
    "pre_head_norm",
)  # fmt: skip
# A model has the attributes `num_classes` (0: no head, the features come out) and `dtype`, a method `widest`, a layer
# "head" at the top level, and a `__call__(images, *, train, positions)`, whose dropout depends on the rng "dropout" and
# on each example's position in the global batch.
Model = MlpMixer | Mlp | Cnn


def from_variant(name: str, num_classes: int, **fields: Any) -> MlpMixer:
    """Return the Mixer of a variant.

    Args:
      name: size and patch size, such as "B/16"; see `SIZES`.
      num_classes: the width of the head; 0 for no head.
      **fields: other attributes of `MlpMixer`. They override those of the variant.

    Raises:
      UserError: if the size is unknown or the patch size is not a positive integer.
    """
    return MlpMixer(num_classes=num_classes, **variant(name) | fields)


def name_of(config: ConfigDict, model: Model) -> str:
    """Return the name of a `model` section's variant, with the model's patch size.

    "(modified)" follows the name if the model differs from the variant in any of `PARTS`.
    """
    if not isinstance(model, MlpMixer) or not config.variant:
        return config.variant
    name = f"{config.variant.partition('/')[0]}/{model.patch_size}"
    plain = from_variant(name, model.num_classes)
    return name if all(getattr(model, part) == getattr(plain, part) for part in PARTS) else f"{name} (modified)"


def require_choices(config: ConfigDict) -> None:
    """Raise `UserError` if a name in a `model` section does not exist."""
    if config.variant and config.variant not in (*SIZES, *BASELINES):
        variant(config.variant, BASELINES)
    if config.gelu not in GELUS:
        raise one_of("config.model.gelu", config.gelu, GELUS)
    if config.initialization not in INITIALIZATIONS:
        raise one_of("config.model.initialization", config.initialization, INITIALIZATIONS)


def param_shapes(model: Model, image_shape: tuple[int, int, int]) -> Any:
    """Return the shapes and dtypes of a model's parameters for an input of `image_shape`, without computing them."""
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))["params"]


def create(
    config: ConfigDict, *, num_classes: int, image_shape: tuple[int, int, int], dtype: jnp.dtype = jnp.float32
) -> Model:
    """Build the model of a config.

    A size that is None in the config takes the value of the variant.

    Args:
      config: the `model` section; see `mixer_jax.config`.
      num_classes: the width of the head; 0 for no head.
      image_shape: (height, width, channels) of the model's input.
      dtype: the dtype of the computation; parameters are float32.

    Raises:
      UserError: if the variant, GELU or initialisation is unknown, a size is missing or out of range, the patches do
        not tile the image, or a baseline gets a setting of the Mixer.
    """
    require_choices(config)
    height, width, _ = image_shape
    if config.variant in BASELINES:
        if config.variant == "CNN" and min(height, width) < 2:
            raise UserError(f"image size {height}x{width} is too small for the CNN, which pools 2x2 pixels")
        for key, default in default_config().model.items():
            if key != "variant" and config[key] != default:
                raise UserError(f"config.model.{key}={config[key]}: the {config.variant} does not have this setting")
        return BASELINES[config.variant](num_classes=num_classes, dtype=dtype)
    fields = {key: value for key, value in config.to_dict().items() if key != "variant" and value is not None}
    if config.variant in SIZES:
        fields = variant(f"{config.variant}/{patch_size_for(height, width)}") | fields
    elif config.variant:
        fields = variant(config.variant, BASELINES) | fields
    for key in ("num_blocks", "patch_size", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim"):
        if key not in fields:
            raise UserError(f"config.model.{key} is not set, and config.model.variant is empty")
        if fields[key] < 1:
            raise UserError(f"config.model.{key}={fields[key]}: must be at least 1")
    patch = fields["patch_size"]
    if height % patch or width % patch:
        raise UserError(
            f"image size {height}x{width} is not divisible by patch size {patch}: "
            "set config.model.patch_size or config.dataset.image_size"
        )
    return MlpMixer(num_classes=num_classes, dtype=dtype, **fields)
