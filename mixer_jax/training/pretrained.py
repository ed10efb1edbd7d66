"""A trained Mixer's parameters, from a run directory, a file or an address: to convert, or to start training from."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.interop.download import local
from mixer_jax.interop.weights import COMPUTED_WITH, LARGEST_FILE, from_layout, read_file, require_same_shapes
from mixer_jax.models import MlpMixer, Model, param_shapes
from mixer_jax.models.resolution import interpolated, tiled
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.inference import Classifier

PARTS = ("token_mixing", "channel_mixing", "pre_head_norm")  # that the paper's Mixer has
SIZES = ("patch_size", "num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim", "num_classes")


@dataclasses.dataclass(frozen=True)
class Weights:
    """A Mixer's parameters and what has to be known to use them.

    Attributes:
      params: host arrays.
      fields: of the `MlpMixer` that computes with them, and the name of its `variant`, or None.
      image_shape: (height, width, channels) of what it sees.
      label_names: of the classes.
      mean, std: of the pixels, as fractions of 255, by which images are normalised.
      found: what they are, to be said in a line.
    """

    params: dict[str, Any]
    fields: dict[str, Any]
    image_shape: tuple[int, int, int]
    label_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    found: str


def read_weights(source: str, checkpoint: str = "best") -> Weights:
    """Reads a Mixer's parameters.

    Args:
      source: a run directory; a file of the paper's, timm's or lucidrains'; or the address of one, https:// or gs://.
      checkpoint: of a run directory, as `Classifier` has it.

    Raises:
      UserError: if they cannot be read, are no Mixer's, or no numbers.
    """
    weights = _of_run(source, checkpoint) if Path(source).is_dir() else _of_file(source)
    for path, x in jax.tree_util.tree_leaves_with_path(weights.params):
        if not np.isfinite(x).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"{source}: {name} holds NaN or infinity, and gives no logits that mean anything")
    return weights


def _of_run(source: str, checkpoint: str) -> Weights:
    run = RunDirectory(source)
    classifier = Classifier(run, checkpoint)
    model, described, variant = classifier.model, run.described(), classifier.config.model.variant
    if not isinstance(model, MlpMixer):
        raise UserError(f"{source} holds a {variant}, not a Mixer")
    fields = {name: getattr(model, name) for name in (*SIZES, *COMPUTED_WITH, *PARTS)} | {"variant": variant}
    found = f"run directory, {variant}, {checkpoint} of step {classifier.step}"
    mean, std = described["mean"], described["std"]
    return Weights(classifier.params, fields, classifier.input_shape, classifier.label_names, mean, std, found)


def _of_file(source: str) -> Weights:
    with local(source, LARGEST_FILE) as path:
        params, fields, layout = from_layout(read_file(path), source)
    height, width, channels = shape = fields.pop("image_shape")
    described = fields["variant"] or f"{fields['num_blocks']} blocks of {fields['hidden_dim']}"
    count = sum(x.size for x in jax.tree.leaves(params))
    found = f"{layout}, {described}, {count:,} parameters, {height}x{width}x{channels}, {fields['num_classes']} classes"
    names = tuple(f"class {i}" for i in range(fields["num_classes"]))
    # The paper's and timm's Mixers see pixels from -1 to 1.
    half = (0.5,) * channels
    return Weights(params, fields | dict.fromkeys(PARTS, True), shape, names, half, half, found)


def at_image_size(
    weights: Weights, image_size: tuple[int, int], tokens_mlp_dim: int | None = None
) -> tuple[Weights, str]:
    """Makes a Mixer one for images of another size, with the same patches.

    Args:
      weights: of the Mixer.
      image_size: (height, width), multiples of the patch size.
      tokens_mlp_dim: the hidden width of its token mixing, which says how: as many times larger as there are more
        patches, as in the paper's appendix C, where either side has a multiple of the patches it had; or as it was, by
        interpolation, which is not the paper's. None: the paper's way where it can be.

    Returns:
      The new weights, and in a line what was done; "" for nothing.

    Raises:
      UserError: if the width is neither.
    """
    patch, width = weights.fields["patch_size"], weights.fields["tokens_mlp_dim"]
    grid, new_grid = (tuple(side // patch for side in sides) for sides in (weights.image_shape[:2], image_size))
    shape = (*image_size, weights.image_shape[2])
    if new_grid == grid or not weights.fields["token_mixing"]:
        return dataclasses.replace(weights, image_shape=shape), ""
    old, new = ("x".join(map(str, g)) for g in (grid, new_grid))
    copies = (new_grid[0] // grid[0], new_grid[1] // grid[1])
    multiple = (copies[0] * grid[0], copies[1] * grid[1]) == new_grid
    tiled_width = width * math.prod(copies)
    if multiple and tokens_mlp_dim in (None, tiled_width):
        params, how = tiled(weights.params, grid, copies), f"repeated in {copies[0]}x{copies[1]} tiles (paper, app. C)"
    elif tokens_mlp_dim in (None, width):
        params, how = interpolated(weights.params, grid, new_grid), "interpolated (not from the paper)"
    else:
        tiling = f"{tiled_width}, tiled as in the paper's appendix C, or " if multiple else ""
        raise UserError(
            f"config.model.tokens_mlp_dim={tokens_mlp_dim}: token mixing for {old} patches becomes one for {new} with "
            f"{tiling}{width}, interpolated"
        )
    new_width = params["MixerBlock_0"]["token_mixing"]["Dense_0"]["bias"].size
    fields = weights.fields | {"tokens_mlp_dim": new_width}
    return dataclasses.replace(weights, params=params, fields=fields, image_shape=shape), (
        f"token mixing for {old} patches {how} for {new}"
    )


def with_channels(weights: Weights, channels: int) -> tuple[Weights, str]:
    """Makes a Mixer for grey images one for colour, that computes of equal channels what it did of one; or back.

    Returns:
      The new weights, and in a line what was done; "" for nothing, also where neither is grey.
    """
    height, width, before = weights.image_shape
    if before == channels or 1 not in (before, channels):
        return weights, ""
    stem, how = weights.params["stem"], "summed" if channels == 1 else "shared out"
    kernel = np.asarray(stem["kernel"])
    kernel = kernel.sum(2, keepdims=True) if channels == 1 else np.repeat(kernel / channels, channels, 2)
    params = weights.params | {"stem": stem | {"kernel": kernel}}
    changed = dataclasses.replace(weights, params=params, image_shape=(height, width, channels))
    return changed, f"{before} channels become {channels}: the stem's kernel is {how}"


def initial_params(source: str, model: Model, image_shape: tuple[int, int, int]) -> Any:
    """Reads the parameters of `config.init_from`; says in one line each what is not taken over as it is.

    Args:
      source: as `read_weights` has it; of a run directory it is the best epoch's.
      model: the Flax module that they are for.
      image_shape: (height, width, channels) of the images that it sees.

    Returns:
      The parameters, host arrays: for another number of classes with a head of zeros, for another number of patches as
      `at_image_size` has it, for grey or for colour as `with_channels`.

    Raises:
      UserError: if they cannot be read, or are of a model of other sizes.
    """
    if not isinstance(model, MlpMixer):
        raise UserError(f"config.init_from={source}: only a Mixer starts from weights")
    if "://" not in source and not Path(source).exists():
        raise UserError(f"config.init_from={source}: there is no such run directory or file")
    weights = read_weights(source)
    for name in COMPUTED_WITH:
        there, here = weights.fields[name], getattr(model, name)
        if there != here:
            print(f"warning: {source} computed with {name} {there}, config.model.{name} is {here}")
    _require_same_sizes(source, weights, model)
    resized = ""
    if weights.fields["patch_size"] == model.patch_size and model.token_mixing:
        weights, resized = at_image_size(weights, image_shape[:2], model.tokens_mlp_dim)
    weights, recoloured = with_channels(weights, image_shape[2])
    for change in filter(None, (resized, recoloured)):
        print(f"{source}: {change}")
    like, params = param_shapes(model, image_shape), weights.params
    there, here = weights.fields["num_classes"], model.num_classes
    if there != here:
        print(f"{source}: {there} classes there, {here} here: the head starts from zero")
        params = params | {"head": {name: np.zeros(x.shape, x.dtype) for name, x in like["head"].items()}}
    require_same_shapes(params, like, f"config.init_from={source}")
    return params


def _require_same_sizes(source: str, weights: Weights, model: MlpMixer) -> None:
    """Raises `UserError` if the weights are of another Mixer, but for what can be made to fit."""
    sizes = ("patch_size", "num_blocks", "hidden_dim", "channels_mlp_dim")
    differing = [name for name in sizes if weights.fields[name] != getattr(model, name)]
    if differing:
        listed = "; ".join(f"{name} {weights.fields[name]} there, {getattr(model, name)} here" for name in differing)
        variant = weights.fields["variant"]
        remedy = f"--config.model.variant={variant}" if variant else f"--config.model.{differing[0]} and the like"
        raise UserError(f"config.init_from={source} is another Mixer ({listed}): give {remedy}")
