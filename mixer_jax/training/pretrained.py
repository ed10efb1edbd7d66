"""Initial parameters from a trained Mixer, adapted to the model to be trained."""

import math
from typing import Any

import numpy as np

from mixer_jax.data import FIXED
from mixer_jax.errors import UserError
from mixer_jax.inference import Classifier, Known, at_image_size, load, require_mixer, with_channels
from mixer_jax.messages import say, warn
from mixer_jax.models import MlpMixer, Model, param_shapes, variant
from mixer_jax.weights import COMPUTED_WITH, require_same_shapes


def initial_params(source: str, model: Model, input_shape: tuple[int, int, int], normalization: str = "") -> Any:
    """Return the parameters of `config.init_from`, adapted to a model; messages say what was changed.

    Args:
      source: as for `inference.load`.
      model: the Flax module to be trained.
      input_shape: (height, width, channels) of the model's input.
      normalization: `config.dataset.normalization`, or "" to skip the check. A warning is given if the weights were
        trained with the normalisation "paper" or "unit" and `normalization` is not the same.

    Returns:
      The parameters, as host arrays. If the number of classes differs, the head is zero. If the number of patches
      differs, see `at_image_size`; for a change between grey and colour, see `with_channels`.

    Raises:
      UserError: if the parameters cannot be read, if the source or the model is not a Mixer, or if sizes that cannot be
        adapted differ.
    """
    if not isinstance(model, MlpMixer):
        raise UserError(f"config.init_from={source}: works only for Mixer models")
    # None: as many as the file has, because grey and colour are converted below.
    channels = None if input_shape[2] in (1, 3) else input_shape[2]
    try:
        classifier = load(source, known=Known(input_shape[:2], model.patch_size, channels))
    except UserError as error:
        raise UserError(f"config.init_from={source}: {error}") from error
    start = require_mixer(classifier)
    _require_one_shape(source, classifier, input_shape)
    prepared = (classifier.preprocessing.mean[0], classifier.preprocessing.std[0])
    of_weights = next((name for name, fixed in FIXED.items() if fixed == prepared), normalization)
    if normalization and of_weights != normalization:
        warn(
            f"{source} was trained with normalization {of_weights}, but config.dataset.normalization is {normalization}"
        )
    for name in COMPUTED_WITH:
        there, here = getattr(start, name), getattr(model, name)
        if there != here:
            warn(f"{source} was trained with {name} {there}, but config.model.{name} is {here}")
    _require_same_sizes(source, classifier, start, model, input_shape)
    resized = ""
    if start.patch_size == model.patch_size and model.token_mixing:
        classifier, resized = at_image_size(classifier, input_shape[:2], model.tokens_mlp_dim)
    classifier, recoloured = with_channels(classifier, input_shape[2])
    for change in filter(None, (resized, recoloured)):
        say(f"{source}: {change}")
    like, params = param_shapes(model, input_shape), classifier.params
    if start.num_classes != model.num_classes:
        theirs = start.num_classes or "no"
        say(f"{source}: it has {theirs} classes and the data {model.num_classes}, so the head starts from zero")
        params = params | {"head": {name: np.zeros(x.shape, x.dtype) for name, x in like["head"].items()}}
    require_same_shapes(params, like, f"config.init_from={source}")
    return params


def _require_one_shape(source: str, classifier: Classifier, input_shape: tuple[int, int, int]) -> None:
    """Raise `UserError` if the file's weights suit two image shapes and the file does not record which one is right.

    The two image shapes have the same number of patches.
    """
    height, width = input_shape[:2]
    side = math.isqrt(height * width)
    same = classifier.origin.shape_assumed and classifier.input_shape[:2] == (height, width)
    if same and height != width and side * side == height * width:
        raise UserError(
            f"config.init_from={source} does not record whether it is for images of {side}x{side} or {height}x{width}: "
            "convert it with --image_size first"
        )


def _require_same_sizes(
    source: str, classifier: Classifier, there: MlpMixer, here: MlpMixer, input_shape: tuple[int, int, int]
) -> None:
    """Raise `UserError` if the Mixers differ in sizes that cannot be adapted."""
    sizes = ("patch_size", "num_blocks", "hidden_dim", "channels_mlp_dim")
    differing = [name for name in sizes if getattr(there, name) != getattr(here, name)]
    if differing:
        if there.tokens_mlp_dim != here.tokens_mlp_dim:
            differing.append("tokens_mlp_dim")
        listed = ", ".join(f"{name} {getattr(there, name)}, not {getattr(here, name)}" for name in differing)
        name = classifier.config.variant
        if "/" in name and all(getattr(there, field) == value for field, value in variant(name).items()):
            needed = [f"config.model.variant={name} without other sizes"]
        else:
            needed = [f"config.model.{name}={getattr(there, name)}" for name in differing]
        if any(side % there.patch_size for side in input_shape[:2]):
            needed.append(f"config.augment.input_size={','.join(map(str, classifier.input_shape[:2]))}")
        raise UserError(f"config.init_from={source} is a Mixer of other sizes ({listed}): set {' and '.join(needed)}")
