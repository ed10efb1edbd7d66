"""Conversion of Mixer weights between this library's layout and those of other projects.

This library uses the names and shapes of the paper's checkpoints. The other projects need not be installed.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mixer_jax.errors import UserError
from mixer_jax.models import PAPER_VARIANTS, SIZES, MlpMixer, param_shapes, variant

Params = dict[str, Any]
Arrays = dict[str, np.ndarray]

MIXINGS = ("token_mixing", "channel_mixing")
COMPUTED_WITH = ("gelu", "layer_norm_epsilon")  # settings of a model that its parameters do not determine


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names and shapes of a project's Mixer weights.

    Attributes:
      key: maps a parameter path here, such as "head/kernel", and the number of blocks to the project's array name.
      block: a regular expression that matches the array names of a block; its group is the block's number.
      to_theirs, to_ours: convert an array, given its path in this library, to the project's shape and back.
      gelu, layer_norm_epsilon: of the project's model, as in `models.MlpMixer`.
      first: the number that the project gives to the first block.
    """

    key: Callable[[str, int], str]
    block: str
    to_theirs: Callable[[str, np.ndarray], np.ndarray]
    to_ours: Callable[..., np.ndarray]
    gelu: str
    layer_norm_epsilon: float
    first: int = 0


def _parts(path: str) -> tuple[str, tuple[int, str, int] | None, str]:
    """Split a path into its module, its place in a block, and PyTorch's name of the array.

    The place is (block, mixing, layer) with mixing "token", "channel" or, for a LayerNorm, ""; None outside blocks.
    """
    module, name = path.rsplit("/", 1)
    inside = re.fullmatch(r"MixerBlock_(\d+)/(?:(token|channel)_mixing/)?(?:LayerNorm|Dense)_(\d)", module)
    block = (int(inside[1]), inside[2] or "", int(inside[3])) if inside else None
    return module, block, "bias" if name == "bias" else "weight"


def _timm_key(path: str, num_blocks: int) -> str:
    module, inside, name = _parts(path)
    if inside is None:
        return f"{ {'stem': 'stem.proj', 'pre_head_layer_norm': 'norm', 'head': 'head'}[module] }.{name}"
    block, mixing, layer = inside
    return f"blocks.{block}." + (f"mlp_{mixing}s.fc{layer + 1}" if mixing else f"norm{layer + 1}") + f".{name}"


def _lucidrains_key(path: str, num_blocks: int) -> str:
    module, inside, name = _parts(path)
    if inside is None:
        return f"{ {'stem': 1, 'pre_head_layer_norm': num_blocks + 2, 'head': num_blocks + 4}[module] }.{name}"
    block, mixing, layer = inside
    return f"{block + 2}." + (f"{int(mixing == 'channel')}.fn.{3 * layer}" if mixing else f"{layer}.norm") + f".{name}"


def _torch(path: str, array: np.ndarray) -> np.ndarray:
    """Convert a kernel (..., in, out) to PyTorch's (out, in, ...)."""
    return np.moveaxis(array, (-1, -2), (0, 1)) if path.endswith("kernel") else array


def _from_torch(path: str, array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (0, 1), (-1, -2)) if path.endswith("kernel") and array.ndim > 1 else array


def _lucidrains(path: str, array: np.ndarray) -> np.ndarray:
    if path == "stem/kernel":  # a linear layer over patches that are flattened as (rows, columns, channels)
        return array.reshape(-1, array.shape[-1]).T
    array = _torch(path, array)
    return array[..., None] if "token_mixing" in path and path.endswith("kernel") else array  # a convolution of width 1


def _from_lucidrains(path: str, array: np.ndarray, channels: int | None = None) -> np.ndarray:
    if path == "stem/kernel" and array.ndim == 2:
        # The file does not store the shape of a patch, so it is taken to be a square with 3 channels, or else 1.
        for depth in (channels,) if channels else (3, 1):
            side = math.isqrt(array.shape[1] // depth)
            if side * side * depth == array.shape[1]:
                return array.T.reshape(side, side, depth, -1)
    if "token_mixing" in path and path.endswith("kernel") and array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return _from_torch(path, array)


LAYOUTS = {
    "paper": Layout(lambda path, n: path, r"MixerBlock_(\d+)/", lambda p, x: x, lambda p, x: x, "tanh", 1e-6),
    "timm": Layout(_timm_key, r"blocks\.(\d+)\.", _torch, _from_torch, "exact", 1e-6),
    "lucidrains": Layout(_lucidrains_key, r"(\d+)\.0\.norm\.", _lucidrains, _from_lucidrains, "exact", 1e-5, first=2),
}
# Prefixes of the array names in older checkpoints of the paper and in those of its successor.
PREFIXES = ("", "params/", "opt/target/", "optimizer/target/", "target/")


def to_layout(params: Params, name: str) -> Arrays:
    """Return the parameters of a Mixer in the layout of a project.

    Args:
      params: of a model; every layout but "paper" requires a Mixer with both mixings and the LayerNorm before the head.
      name: the name of the layout, a key of `LAYOUTS`.

    Returns:
      Contiguous arrays by the project's names.
    """
    layout, flat = LAYOUTS[name], flatten_dict(params, sep="/")
    num_blocks = sum(key.startswith("MixerBlock_") for key in params)
    theirs = {layout.key(path, num_blocks): layout.to_theirs(path, np.asarray(x)) for path, x in flat.items()}
    return {key: np.ascontiguousarray(x) for key, x in theirs.items()}


def from_layout(
    arrays: Mapping[str, np.ndarray], source: str, image_shape: tuple[int, int, int] | None = None
) -> tuple[Params, dict[str, Any], str]:
    """Detect the layout of arrays and convert them to this library's layout.

    Args:
      arrays: by name.
      source: where the arrays come from, for error messages.
      image_shape: (height, width, channels) of the model's input; None to assume that it is a square.

    Returns:
      A tuple: the parameters, float32; a dict of fields of `config.model`, with `num_classes` and `image_shape`, for
      a model that computes the same function; and the name of the layout.

    Raises:
      UserError: if no layout matches, or an array is missing, unexpected, not floating-point, or of a wrong shape; the
        message names the first such array.
    """
    arrays = _without_prefix(arrays)
    found = (n for n, x in LAYOUTS.items() if _num_blocks(arrays, x) > 0 and x.key("stem/kernel", 0) in arrays)
    if (name := next(found, None)) is None:
        some = ", ".join(list(arrays)[:3]) or "nothing"
        raise UserError(f"{source} is no Mixer of {', '.join(LAYOUTS)}: it holds {some}")
    layout = LAYOUTS[name]
    num_blocks, rest, flat = _num_blocks(arrays, layout), dict(arrays), {}
    for path in _paths(num_blocks):
        key = layout.key(path, num_blocks)
        if key not in rest:
            raise UserError(f"{source} ({name}): {key} is missing")
        array = rest.pop(key)
        if array.dtype.kind != "f" and array.dtype != jnp.bfloat16:
            raise UserError(f"{source} ({name}): {key} is {array.dtype}, not a float")
        array = array.astype(np.float32)
        known = (image_shape[2],) if image_shape and name == "lucidrains" else ()
        flat[path] = np.ascontiguousarray(layout.to_ours(path, array, *known))
    if rest:
        raise UserError(f"{source} ({name}): {next(iter(rest))} belongs to no Mixer of {num_blocks} blocks")
    fields = _fields(flat, num_blocks, f"{source} ({name})", image_shape)
    fields |= {"gelu": layout.gelu, "layer_norm_epsilon": layout.layer_norm_epsilon}
    params = unflatten_dict(flat, sep="/")
    model = MlpMixer(**{key: value for key, value in fields.items() if key not in ("image_shape", "variant")})
    require_same_shapes(params, param_shapes(model, fields["image_shape"]), f"{source} ({name})")
    return params, fields, name


def require_same_shapes(params: Params, expected: Params, source: str) -> None:
    """Require that two trees hold arrays of the same names, shapes and dtypes.

    Args:
      params: the tree to check.
      expected: the tree of expected shapes, such as `models.param_shapes` returns.
      source: where `params` come from, for error messages.

    Raises:
      UserError: if they differ; the message names the first array that does.
    """
    there = {jax.tree_util.keystr(key): x for key, x in jax.tree_util.tree_leaves_with_path(params)}
    for key, shape in jax.tree_util.tree_leaves_with_path(expected):
        name = jax.tree_util.keystr(key)
        found = there.pop(name, None)
        if getattr(found, "shape", None) != shape.shape or found.dtype != shape.dtype:
            what = f"{found.dtype}{list(found.shape)}" if hasattr(found, "shape") else "nothing"
            raise UserError(f"{source} is of another model: {name} is {what}, not float32{list(shape.shape)}")
    if there:
        raise UserError(f"{source} is of another model: it has {next(iter(there))} in addition")


def _without_prefix(arrays: Mapping[str, np.ndarray]) -> Arrays:
    for prefix in PREFIXES:
        if f"{prefix}stem/kernel" in arrays:  # such a file can also hold the optimiser's state and the step
            return {key.removeprefix(prefix): x for key, x in arrays.items() if key.startswith(prefix)}
    return dict(arrays)


def _num_blocks(arrays: Mapping[str, np.ndarray], layout: Layout) -> int:
    numbers = [int(match[1]) for key in arrays if (match := re.match(layout.block, key))]
    return max(numbers, default=layout.first - 1) + 1 - layout.first


def _paths(num_blocks: int) -> Iterator[str]:
    yield from ("stem/kernel", "stem/bias")
    for block in (f"MixerBlock_{i}" for i in range(num_blocks)):
        yield from (f"{block}/LayerNorm_{i}/{name}" for i in range(2) for name in ("scale", "bias"))
        yield from (f"{block}/{m}/Dense_{i}/{name}" for m in MIXINGS for i in range(2) for name in ("kernel", "bias"))
    yield from ("pre_head_layer_norm/scale", "pre_head_layer_norm/bias", "head/kernel", "head/bias")


def _fields(flat: Arrays, num_blocks: int, source: str, image_shape: tuple[int, int, int] | None) -> dict[str, Any]:
    """Return the variant, sizes, number of classes and image shape of a model, inferred from its arrays' shapes."""
    ranks = {"stem/kernel": 4, "head/kernel": 2} | {f"MixerBlock_0/{m}/Dense_0/kernel": 2 for m in MIXINGS}
    for path, rank in ranks.items():
        if flat[path].ndim != rank or 0 in flat[path].shape:
            raise UserError(f"{source}: {path} of shape {list(flat[path].shape)} is not that of a Mixer")
    stem, head, tokens, channels = (flat[path].shape for path in ranks)
    side = math.isqrt(tokens[0]) * stem[0]
    height, width, _ = image_shape or (side, side, 0)
    if stem[0] != stem[1] or height * width != tokens[0] * stem[0] ** 2:
        raise UserError(f"{source}: patches of {stem[0]}x{stem[1]}, {tokens[0]} of them, make no square image")
    sizes = {
        "patch_size": stem[0],
        "num_blocks": num_blocks,
        "hidden_dim": stem[3],
        "tokens_mlp_dim": tokens[1],
        "channels_mlp_dim": channels[1],
    }
    names = [*PAPER_VARIANTS, *(f"{size}/{stem[0]}" for size in SIZES)]
    name = next((name for name in names if variant(name) == sizes), None)
    return sizes | {"variant": name or "", "num_classes": head[1], "image_shape": (height, width, stem[2])}
