"""Recognition of a Mixer among the arrays of a file.

The layout, the prefix of the names, and what else the file holds do not matter.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from mixer_jax.errors import UserError
from mixer_jax.messages import warn
from mixer_jax.models import PAPER_VARIANTS, SIZES, variant
from mixer_jax.weights.layouts import LAYOUTS, Arrays, Layout, Params

MIXINGS = ("token_mixing", "channel_mixing")
HEAD = ("head/kernel", "head/bias")
# Parts of names: of a moving average of the weights, as in timm and others; and of what an optimiser stores per weight.
AVERAGED = re.compile(r"(^|[./])(\w*_)?(ema|avg|averaged?|swa)(_\w*)?($|[./])", re.IGNORECASE)
MOMENTS = re.compile(
    r"(^|[./])(mu|nu|v_row|v_col|trace|momentum|velocity|exp_avg\w*|grad_\w*|opt(im\w*)?(_states?)?(?![./]target))($|[./])"
)
# Array names by which other models are recognised, most particular first.
OTHER_MODELS = {
    r"mlp_channels\.gate\.|\.sgu\.|\.spatial_proj": "a gMLP",
    r"linear_tokens|blocks\.0\.norm1\.alpha": "a ResMLP",
    r"cls_token|class_token|pos_embed|encoderblock|patch_embeddings": "a Vision Transformer",
    r"attn|attention": "a transformer",
    r"(^|\.)0\.fn\.2\.running_mean": "a ConvMixer",
    r"layer1\.0\.(conv1|bn1)\.": "a ResNet",
    r"running_mean|batch_stats|bn1": "a convolutional network",
}
# The same, for arrays among which there is no stem of a Mixer.
WITHOUT_STEM = {
    r"mlp_tokens": "a Mixer whose stem is not one layer over patches",
    r"token_mix|MixerBlock|mixer_blocks": "a Mixer of another implementation",
    r"conv": "a convolutional network",
}


def from_layout(
    arrays: Mapping[str, np.ndarray],
    source: str,
    *,
    entry: str = "",
    image_size: Sequence[int] = (),
    perhaps: Sequence[int] = (),
    patch_size: int | None = None,
    channels: int | None = None,
) -> tuple[Params, dict[str, Any], str]:
    """Find the Mixer among arrays, detect its layout and convert it to this library's layout.

    Args:
      arrays: the arrays by name; the names may have a prefix, and the state of an optimiser, for example, may be among
        them.
      source: where the arrays come from, for error messages.
      entry: a prefix, such as "state_dict", that selects one of several Mixers; "" for the averaged weights (EMA).
      image_size: (height, width) of the model's input; () if not known.
      perhaps: fallback for `image_size`, used if it gives the model's number of patches; otherwise a square is assumed.
      patch_size, channels: the size of a patch and the channels of the images, for arrays that do not determine these
        numbers; None if not known.

    Returns:
      A tuple: the parameters, float32; a dict of fields of `config.model`, with `num_classes` and `image_shape`, for
      a model that computes the same function; and the name of the layout. `num_classes` is 0 if there is no head.

    Raises:
      UserError: if there is no Mixer, or an array is missing, unexpected, or not a finite floating-point array; the
        message names the first such array. Also if the arrays do not determine the image shape. Shapes that do not
        fit the model are left for `Classifier` to find.
    """
    name, rest = _select(arrays, source, entry)
    layout, here = LAYOUTS[name], f"{source} ({name})"
    flat: Arrays = {}
    num_blocks = len({match[1] for key in rest if (match := re.match(layout.block, key))})
    headless = not any(layout.key(path, num_blocks) in rest for path in HEAD)
    for path in _paths(num_blocks):
        if headless and path in HEAD:
            continue
        key = layout.key(path, num_blocks)
        if key not in rest and _other_model(rest, OTHER_MODELS):
            raise _no_mixer(arrays, source)
        if key not in rest:
            raise UserError(f"{here}: {key} is missing")
        flat[path] = np.ascontiguousarray(layout.to_ours(path, _as_float32(rest.pop(key), f"{here}: {key}")))
    if rest:
        raise UserError(f"{here}: {next(iter(rest))} belongs to no Mixer of {num_blocks} blocks")
    _require_plain(flat, layout, here)
    if layout.flat_patches:
        flat["stem/kernel"] = _patches(flat["stem/kernel"], here, patch_size, channels)
    patch, tokens = flat["stem/kernel"].shape[0], flat[f"MixerBlock_0/{MIXINGS[0]}/Dense_0/kernel"].shape[0]
    fitting = (size for size in (image_size, perhaps) if len(size) == 2 and math.prod(size) == tokens * patch**2)
    fields = _fields(flat, num_blocks, here, next(fitting, image_size))
    fields |= {"gelu": layout.gelu, "layer_norm_epsilon": layout.layer_norm_epsilon}
    return unflatten_dict(flat, sep="/"), fields, name


def _select(arrays: Mapping[str, np.ndarray], source: str, entry: str) -> tuple[str, Arrays]:
    """Return the name of the layout and the arrays of the Mixer, without their prefix."""
    found = {prefix: name for name, layout in LAYOUTS.items() for prefix in _prefixes(arrays, layout)}
    if not found:
        raise _no_mixer(arrays, source)
    names = {prefix: prefix.strip("./") or "the file itself" for prefix in found}
    weights = [prefix for prefix in found if not MOMENTS.search(prefix)]  # moments have the weights' names
    if entry:
        chosen = [prefix for prefix in found if names[prefix] == entry or re.match(re.escape(entry) + "[./]", prefix)]
    else:
        chosen = [prefix for prefix in weights if AVERAGED.search(prefix)] if len(weights) > 1 else weights
    if len(chosen) != 1:
        several = f"{len(weights)} sets of weights" if weights else "a Mixer only in the state of an optimiser"
        if entry and len(found) == 1:
            raise UserError(f"{source} holds one set of weights: leave checkpoint out")
        wrong = f"no single Mixer {entry!r}" if entry else several
        raise UserError(f"{source} holds {wrong}; to choose one, set checkpoint to {' or '.join(names.values())}")
    prefix = chosen[0]
    if len(weights) > 1 and not entry:
        others = ", ".join(names[other] for other in weights if other != prefix)
        warn(f"{source}: taking the averaged weights, {names[prefix]}; set checkpoint for the others: {others}")
    beside = [key for key in arrays if not key.startswith(prefix) and key.startswith(_parent(prefix))]
    if prefix and beside and _parent(prefix):
        warn(f"{source}: {len(beside)} arrays beside {names[prefix]} are left out, such as {beside[0]}")
    return found[prefix], {key.removeprefix(prefix): x for key, x in arrays.items() if key.startswith(prefix)}


def _prefixes(arrays: Mapping[str, np.ndarray], layout: Layout) -> Iterator[str]:
    """Yield the prefixes of the Mixers in arrays."""
    stem = layout.key("stem/kernel", 0)
    for key in arrays:
        prefix = key.removesuffix(stem)
        if key.endswith(stem) and (not prefix or prefix[-1] in "./"):
            block = re.compile(re.escape(prefix) + layout.block)
            if any(block.match(other) for other in arrays):
                yield prefix


def _parent(prefix: str) -> str:
    """Return the part of a prefix that names the dict of weights, such as "state_dict." of "state_dict.module.".

    It is "" if the file itself is that dict.
    """
    match = re.match(r"(\w*(state_dict|weights|params)\w*)\.", prefix)
    return match[0] if match else ""


def _other_model(arrays: Iterable[str], models: Mapping[str, str]) -> str:
    """Return the name of the model that has arrays of these names; "" if it is not among `models`."""
    return next((model for pattern, model in models.items() if any(re.search(pattern, key) for key in arrays)), "")


def _no_mixer(arrays: Iterable[str], source: str) -> UserError:
    """Return the error for arrays that are not a Mixer's; it names their model if the arrays' names reveal it."""
    model = _other_model(arrays, OTHER_MODELS | WITHOUT_STEM)
    what = f"{model}, not a Mixer" if model else "not a Mixer"
    some = ", ".join(list(arrays)[:3]) or "none"
    return UserError(f"{source} is {what} in a known layout ({', '.join(LAYOUTS)}); its first arrays: {some}")


def _as_float32(array: np.ndarray, name: str) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} is {array.dtype}, not a float")
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        finite = np.isfinite(array.astype(np.float64)).all()
        raise UserError(f"{name} holds {'values too large for float32' if finite else 'NaN or infinity'}")
    return converted


def _paths(num_blocks: int) -> Iterator[str]:
    yield from ("stem/kernel", "stem/bias")
    for block in (f"MixerBlock_{i}" for i in range(num_blocks)):
        yield from (f"{block}/LayerNorm_{i}/{name}" for i in range(2) for name in ("scale", "bias"))
        yield from (f"{block}/{m}/Dense_{i}/{name}" for m in MIXINGS for i in range(2) for name in ("kernel", "bias"))
    yield from ("pre_head_layer_norm/scale", "pre_head_layer_norm/bias", *HEAD)


def _require_plain(flat: Arrays, layout: Layout, source: str) -> None:
    """Raise `UserError` for arrays that are not those of a Mixer with plain MLPs."""
    ranks = dict.fromkeys((f"MixerBlock_0/{m}/Dense_{i}/kernel" for m in MIXINGS for i in range(2)), 2)
    ranks |= {"stem/kernel": 2 if layout.flat_patches else 4} | ({"head/kernel": 2} if "head/kernel" in flat else {})
    for path, rank in ranks.items():
        if flat[path].ndim != rank or 0 in flat[path].shape:
            raise UserError(f"{source}: {path} of shape {list(flat[path].shape)} is not that of a Mixer")
    for mixing in MIXINGS:
        first, second = (flat[f"MixerBlock_0/{mixing}/Dense_{i}/kernel"].shape for i in range(2))
        if first[1] == 2 * second[0]:
            raise UserError(f"{source} is a gMixer, whose MLPs are gated: not a Mixer as in the paper")


def _patches(kernel: np.ndarray, source: str, patch_size: int | None, channels: int | None) -> np.ndarray:
    """Return the stem's kernel as (patch, patch, channels, hidden_dim), from one with flattened patches."""
    size = kernel.shape[0]
    shapes = [(math.isqrt(size // depth), depth) for depth in ((channels,) if channels else (3, 1, 4))]
    shapes = [(side, depth) for side, depth in shapes if side * side * depth == size and patch_size in (None, side)]
    if not shapes:
        pixels = f"{patch_size}x{patch_size} pixels" if patch_size else "squares"
        given = f"{pixels} of {channels or '1, 3 or 4'} channels"
        raise UserError(f"{source}: patches of {size} values are not {given}: set patch_size and channels")
    if len(shapes) > 1:
        listed = " or ".join(f"{side}x{side} pixels of {depth} channel{'s' * (depth > 1)}" for side, depth in shapes)
        raise UserError(f"{source}: patches of {size} values are {listed}: set channels")
    side, depth = shapes[0]
    return kernel.reshape(side, side, depth, -1)


def _fields(flat: Arrays, num_blocks: int, source: str, image_size: Sequence[int]) -> dict[str, Any]:
    """Return the variant, sizes, number of classes and image shape of a model, inferred from its arrays' shapes."""
    stem, tokens, channels = (
        flat[path].shape for path in ("stem/kernel", *(f"MixerBlock_0/{m}/Dense_0/kernel" for m in MIXINGS))
    )
    patch, side = stem[0], math.isqrt(tokens[0]) * stem[0]
    height, width = image_size or (side, side)
    if stem[0] != stem[1]:
        raise UserError(f"{source}: patches of {stem[0]}x{stem[1]} pixels are not square")
    if height % patch or width % patch or height * width != tokens[0] * patch**2:
        of_image = f"an image of {height}x{width}" if image_size else "a square image"
        raise UserError(
            f"{source}: {tokens[0]} patches of {patch}x{patch} pixels do not form {of_image}: set image_size to the "
            "height and width in pixels"
        )
    sizes = {
        "patch_size": patch,
        "num_blocks": num_blocks,
        "hidden_dim": stem[3],
        "tokens_mlp_dim": tokens[1],
        "channels_mlp_dim": channels[1],
    }
    names = [*PAPER_VARIANTS, *(f"{size}/{patch}" for size in SIZES)]
    name = next((name for name in names if variant(name) == sizes), None)
    num_classes = flat["head/bias"].size if "head/bias" in flat else 0
    return sizes | {"variant": name or "", "num_classes": num_classes, "image_shape": (height, width, stem[2])}
