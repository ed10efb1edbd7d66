"""Optimisers by their optax name, with weight decay of kernels only and gradient clipping by global norm."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers

from mixer_jax.errors import UserError, one_of

BLOCKS = "MixerBlocks"  # the name of the stacked parameters of all blocks


@functools.wraps(optax.contrib.muon)
def muon(*args: Any, stem_as_matrix: bool, **settings: Any) -> optax.GradientTransformation:
    """Return optax's Muon, with the kernels of all blocks stacked, so that its small matrix products run as batches.

    Args:
      *args, **settings: of `optax.contrib.muon`.
      stem_as_matrix: as for `matrices`.
    """
    dimensions = functools.partial(matrices, stem_as_matrix=stem_as_matrix)
    optimizer = optax.contrib.muon(*args, **settings, muon_weight_dimension_numbers=dimensions)

    def init(params: Any) -> Any:
        return optimizer.init(stack_blocks(params))

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        stacked, state = optimizer.update(stack_blocks(updates), state, stack_blocks(params))
        of_blocks = stacked.pop(BLOCKS, None)
        names = [name for name in updates if name not in stacked]
        each = {name: jax.tree.map(lambda x, i=i: x[i], of_blocks) for i, name in enumerate(sorted(names))}
        return stacked | each, state

    return optax.GradientTransformation(init, update)


OF_OPTAX = ("adabelief", "adam", "adamw", "lamb", "lars", "lion", "nadam", "nadamw", "radam", "rmsprop", "sgd")
OPTIMIZERS = {name: getattr(optax, name) for name in OF_OPTAX} | {"muon": muon}
# Those whose update of an entry depends on the rest of its array; `packing` joins arrays for all others.
NOT_ENTRYWISE = ("lamb", "lars", "muon")
# optax's names for the mask of weight decay, in the optimisers that have one.
DECAY_MASKS = ("mask", "weight_decay_mask")


def is_entrywise(config: ConfigDict) -> bool:
    """Return whether an `optimizer` section's optimiser updates concatenated arrays exactly as separate arrays."""
    return config.name not in NOT_ENTRYWISE and config.layer_decay == 1


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimiser of an `optimizer` section, with clipping, weight decay of kernels and scaling by layer.

    The gradient is first clipped to `clip_norm`. Optimisers with a weight decay of their own (adamw, lion, lamb, ...)
    apply it separately from the gradient, multiplied by the learning rate; only lars adds it to the gradient. For all
    others (adam, sgd, ...), weight decay is an L2 term that is added to the gradient, as in torch.optim. Muon decays
    only the kernels that it updates as matrices: see `matrices`. Finally, the updates are scaled by layer: see
    `layer_scales`.

    Raises:
      UserError: if the optimiser is unknown, or a setting is given that it does not have.
    """
    if config.name not in OPTIMIZERS:
        raise one_of("config.optimizer.name", config.name, OPTIMIZERS)
    optimizer = OPTIMIZERS[config.name]
    accepted = inspect.signature(optimizer).parameters
    settings: dict[str, Any] = {key: config[key] for key in ("momentum", "b1", "b2", "eps") if config[key] is not None}
    if others := [key for key in settings if key not in accepted]:
        raise UserError(f"config.optimizer.{others[0]}: {config.name} has no {others[0]}")
    if optimizer is muon:
        settings["stem_as_matrix"] = config.stem_as_matrix
    chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    mask_name = next((name for name in DECAY_MASKS if name in accepted), None)
    if mask_name:
        settings |= {"weight_decay": config.weight_decay, mask_name: kernel_mask}
    elif config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, mask=kernel_mask))
    chain.append(optimizer(schedule, **settings))
    if config.layer_decay < 1:
        chain.append(optax.stateless(lambda updates, _: layer_scales(updates, config.layer_decay)))
    return optax.chain(*chain)


def stack_blocks(tree: Any) -> Any:
    """Return a Mixer's parameters, with the arrays of all blocks stacked under one name along a new first axis."""
    names = sorted(name for name in tree if name.startswith("MixerBlock_"))
    rest = {name: layer for name, layer in tree.items() if name not in names}
    return rest | {BLOCKS: jax.tree.map(lambda *each: jnp.stack(each), *map(tree.get, names))} if names else rest


def matrices(params: Any, stem_as_matrix: bool) -> Any:
    """Return, for each array of `stack_blocks`, the axes of the matrices that Muon updates; None if Adam updates it.

    Muon updates the kernels of dense layers. If `stem_as_matrix` is set, it also updates the stem's kernel, as a matrix
    (values of a patch, channels of a token): as patches do not overlap, the stem is a dense layer on each of them.
    """

    def axes(path: Any, x: jax.Array) -> MuonDimensionNumbers | None:
        if path[-1].key != "kernel":
            return None
        if path[0].key == "stem" and stem_as_matrix:
            return MuonDimensionNumbers((0, 1, 2), 3)
        return MuonDimensionNumbers(x.ndim - 2, x.ndim - 1) if x.ndim == 2 + (path[0].key == BLOCKS) else None

    return jax.tree_util.tree_map_with_path(axes, params)


def kernel_mask(params: Any) -> Any:
    """Return a tree like `params` that is True for kernels, and False for biases and norm scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def layer_scales(updates: Any, decay: float) -> Any:
    """Scale a layer's updates by `decay` to the power of its depth below the head, as timm's `layer_decay` does.

    The head has depth 0, the last block and the norm after it have depth 1, and the stem has the greatest depth.
    """
    num_blocks = sum(name.startswith("MixerBlock_") for name in updates)

    def below_head(name: str) -> int:
        if name.startswith("MixerBlock_"):
            return num_blocks - int(name.removeprefix("MixerBlock_"))
        return {"stem": num_blocks + 1, "pre_head_layer_norm": 1}.get(name, 0)

    return {
        name: jax.tree.map(lambda x, name=name: x * decay ** below_head(name), layer) for name, layer in updates.items()
    }
