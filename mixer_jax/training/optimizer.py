"""Optimisers by their optax name, with weight decay on kernels only and clipping by global norm."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers

from mixer_jax.errors import UserError, one_of

BLOCKS = "MixerBlocks"  # where Muon sees all of them


@functools.wraps(optax.contrib.muon)
def muon(*args: Any, **settings: Any) -> optax.GradientTransformation:
    """optax's, with the kernels of all blocks side by side: the small products that it is made of come in batches."""
    optimizer = optax.contrib.muon(*args, **settings, muon_weight_dimension_numbers=matrices)

    def init(params: Any) -> Any:
        return optimizer.init(stack_blocks(params))

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        stacked, state = optimizer.update(stack_blocks(updates), state, stack_blocks(params))
        of_blocks = stacked.pop(BLOCKS, None)
        names = [name for name in updates if name not in stacked]
        each = {name: jax.tree.map(lambda x, i=i: x[i], of_blocks) for i, name in enumerate(sorted(names))}
        return stacked | each, state

    return optax.GradientTransformation(init, update)


OPTIMIZERS = {
    "adabelief": optax.adabelief,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "lion": optax.lion,
    "muon": muon,
    "nadam": optax.nadam,
    "nadamw": optax.nadamw,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}
# What optax calls the mask of its decoupled weight decay, where the optimiser has one.
DECAY_MASKS = ("mask", "weight_decay_mask")


def is_entrywise(config: ConfigDict) -> bool:
    """Return whether the optimiser of `config.optimizer` treats an entry alike whatever array it is in."""
    return config.name not in ("lamb", "lars", "muon") and config.layer_decay == 1


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Builds the optimiser of `config.optimizer`.

    The gradient is first clipped to `clip_norm`. Weight decay is the optimiser's own, decoupled from the gradient and
    times the learning rate, where it has one (adamw, lion, lamb, ...), and otherwise the L2 term of torch.optim,
    added to the gradient (adam, sgd, ...). Muon's is of matrices only: the stem, whose kernel is none, is left to Adam
    without it. Last, updates are scaled by their layer: see `layer_scales`.

    Raises:
      UserError: if the optimiser is unknown, or a setting is given that it does not have.
    """
    if config.name not in OPTIMIZERS:
        raise one_of("config.optimizer.name", config.name, OPTIMIZERS)
    optimizer = OPTIMIZERS[config.name]
    accepted = inspect.signature(optimizer).parameters
    settings: dict[str, Any] = {}
    for key in ("momentum", "b1", "b2", "eps"):
        if config[key] is not None:
            if key not in accepted:
                raise UserError(f"config.optimizer.{key}: {config.name} has no {key}")
            settings[key] = config[key]
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
    """A Mixer's parameters with those of all blocks under one name, each array with a leading axis of them."""
    names = sorted(name for name in tree if name.startswith("MixerBlock_"))
    rest = {name: layer for name, layer in tree.items() if name not in names}
    return rest | {BLOCKS: jax.tree.map(lambda *each: jnp.stack(each), *map(tree.get, names))} if names else rest


def matrices(params: Any) -> Any:
    """Which arrays of `stack_blocks` Muon treats: the kernels of dense layers; None for what it leaves to Adam."""

    def axes(path: Any, x: jax.Array) -> MuonDimensionNumbers | None:
        dense = path[-1].key == "kernel" and x.ndim == 2 + (path[0].key == BLOCKS)
        return MuonDimensionNumbers(x.ndim - 2, x.ndim - 1) if dense else None

    return jax.tree_util.tree_map_with_path(axes, params)


def kernel_mask(params: Any) -> Any:
    """True for kernels, False for biases and norm scales; the same tree as `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def layer_scales(updates: Any, decay: float) -> Any:
    """Scales each layer's updates by `decay` once more than the next one's, as BEiT's and timm's `layer_decay`.

    The head and the norm before it are left as they are; the last block is scaled by `decay`, the stem most.
    """
    num_blocks = sum(name.startswith("MixerBlock_") for name in updates)

    def below_head(name: str) -> int:
        if name == "stem":
            return num_blocks + 1
        return num_blocks - int(name.removeprefix("MixerBlock_")) if name.startswith("MixerBlock_") else 0

    return {
        name: jax.tree.map(lambda x, name=name: x * decay ** below_head(name), layer) for name, layer in updates.items()
    }
