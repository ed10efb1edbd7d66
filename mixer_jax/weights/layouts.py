"""Conversion of Mixer weights between this library's layout and those of other projects.

This library uses the names and shapes of the paper's checkpoints. The other projects need not be installed.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from mixer_jax.errors import UserError

Params = dict[str, Any]
Arrays = dict[str, np.ndarray]

COMPUTED_WITH = ("gelu", "layer_norm_epsilon")  # settings of a model that its parameters do not determine


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names and shapes of a project's Mixer weights.

    Attributes:
      key: a function of a parameter path of this library, such as "head/kernel", and of the number of blocks; it
        returns the project's array name.
      block: a regular expression that matches the array names of a block; its group is the block's number.
      to_theirs, to_ours: convert an array, given its path in this library, to the project's shape and back.
      gelu, layer_norm_epsilon: of the project's model, as in `models.MlpMixer`.
      flat_patches: whether `to_ours` returns the stem's kernel as (values of a patch, hidden_dim).
    """

    key: Callable[[str, int], str]
    block: str
    to_theirs: Callable[[str, np.ndarray], np.ndarray]
    to_ours: Callable[[str, np.ndarray], np.ndarray]
    gelu: str
    layer_norm_epsilon: float
    flat_patches: bool = False


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


def _from_lucidrains(path: str, array: np.ndarray) -> np.ndarray:
    if path == "stem/kernel":  # whose patches have a shape that the array does not record
        return array.T
    if "token_mixing" in path and path.endswith("kernel") and array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return _from_torch(path, array)


LAYOUTS = {
    "paper": Layout(lambda path, n: path, r"MixerBlock_(\d+)/", lambda p, x: x, lambda p, x: x, "tanh", 1e-6),
    "timm": Layout(_timm_key, r"blocks\.(\d+)\.", _torch, _from_torch, "exact", 1e-6),
    "lucidrains": Layout(
        _lucidrains_key, r"(\d+)\.0\.norm\.", _lucidrains, _from_lucidrains, "exact", 1e-5, flat_patches=True
    ),
}


def to_layout(params: Params, name: str) -> Arrays:
    """Return the parameters of a Mixer in the layout of a project.

    Args:
      params: the parameters of a model; every layout but "paper" requires a Mixer with both mixings and the LayerNorm
        before the head.
      name: the name of the layout, a key of `LAYOUTS`.

    Returns:
      Contiguous arrays by the project's names.
    """
    layout, flat = LAYOUTS[name], flatten_dict(params, sep="/")
    num_blocks = sum(key.startswith("MixerBlock_") for key in params)
    theirs = {layout.key(path, num_blocks): layout.to_theirs(path, np.asarray(x)) for path, x in flat.items()}
    return {key: np.ascontiguousarray(x) for key, x in theirs.items()}


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
            what = f"{found.dtype}{list(found.shape)}" if hasattr(found, "shape") else "missing"
            raise UserError(f"{source} does not match the model: {name} is {what}, expected float32{list(shape.shape)}")
    if there:
        raise UserError(f"{source} does not match the model: {next(iter(there))} is unexpected")
