"""Construction of the parts of a run from its config, dataset and devices, without compiling anything."""

import platform
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mixer_jax import data, models
from mixer_jax.augment import Augment, policy
from mixer_jax.data import Dataset, ProcessShard, TrainSampler, device_memory
from mixer_jax.errors import UserError, one_of
from mixer_jax.training.optimizer import create_optimizer, is_entrywise
from mixer_jax.training.packing import Packing
from mixer_jax.training.parallel import DataParallel, has_bfloat16, microbatches
from mixer_jax.training.schedule import SCHEDULES
from mixer_jax.training.step import DeviceFunctions

VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def create_shard(config: ConfigDict, parallel: DataParallel) -> ProcessShard:
    """Return this process's shard of each batch.

    Raises:
      UserError: if the batch size is not divisible by the number of devices times `accumulation_steps`.
    """
    shard = ProcessShard(len(parallel.local), jax.process_index(), parallel.num_processes)
    num_devices = len(parallel.devices)
    if config.batch_size % (num_devices * (config.accumulation_steps or 1)):
        each = f" times {config.accumulation_steps} accumulation_steps" if config.accumulation_steps > 1 else ""
        raise UserError(f"config.batch_size={config.batch_size} is not divisible by {num_devices} devices{each}")
    return shard


def create_sampler(config: ConfigDict, dataset: Dataset) -> TrainSampler:
    """Return the sampler of the training batches.

    Raises:
      UserError: if the number of steps exceeds an int32.
    """
    if config.epochs * len(dataset.train) / config.batch_size >= TrainSampler.num_steps:
        raise UserError(f"config.epochs={config.epochs:g} needs more than 2**31 - 1 steps: reduce it")
    return TrainSampler(len(dataset.train), config.batch_size, config.seed)


def compute_dtype(config: ConfigDict, parallel: DataParallel) -> jnp.dtype:
    """Return the dtype of the computation: "auto" is bfloat16 if all devices support it, and otherwise float32."""
    if config.dtype == "auto":
        return jnp.dtype("bfloat16" if all(map(has_bfloat16, parallel.devices)) else "float32")
    return jnp.dtype(config.dtype)


def create_functions(
    config: ConfigDict, dataset: Dataset, parallel: DataParallel, schedule: optax.Schedule, total_steps: int
) -> DeviceFunctions:
    """Return the device programs of the run, with its model, optimiser and augmentation.

    Raises:
      UserError: if the config is inconsistent, or does not fit the data or the devices.
    """
    augment = Augment(config.augment, dataset, dataset.num_classes, total_steps)
    dtype, device = compute_dtype(config, parallel), parallel.devices[0]
    model = models.create(config.model, num_classes=dataset.num_classes, image_shape=augment.input_shape, dtype=dtype)
    if config.optimizer.layer_decay < 1 and not isinstance(model, models.MlpMixer):
        raise UserError(f"config.optimizer.layer_decay={config.optimizer.layer_decay:g}: works only for Mixer models")
    per_device = config.batch_size // len(parallel.devices)
    seeds = 1 if device.platform == "cpu" else config.num_seeds  # an accelerator trains all at the same time
    widest = seeds * model.widest(augment.input_shape)
    packs = device.platform != "cpu" and is_entrywise(config.optimizer) and not config.frozen_trunk
    return DeviceFunctions(
        model,
        create_optimizer(config.optimizer, schedule),
        augment,
        config.label_smoothing,
        config.accumulation_steps or microbatches(device.device_kind, per_device, widest),
        config.ema_decay,
        config.frozen_trunk,
        config.optimizer.sam_rho,
        Packing(models.param_shapes(model, augment.input_shape)) if packs else None,
    )


def require_choices(config: ConfigDict) -> None:
    """Raise `UserError` if the config names something unknown, or sets a field that its optimiser lacks."""
    data.checked_fit(config.dataset)
    policy.require_choices(config.augment)
    models.require_choices(config.model)
    if config.schedule.name not in SCHEDULES:
        raise one_of("config.schedule.name", config.schedule.name, SCHEDULES)
    create_optimizer(config.optimizer, optax.constant_schedule(0.0))


def require_memory(shapes: Any, num_params: int, num_seeds: int, device: jax.Device) -> None:
    """Raise `UserError` if the training states of all seeds do not fit into the memory of a device.

    `shapes` are those of one seed's state; `num_params` is for the message. On an accelerator, the states of several
    seeds are in memory three times: as the input of a dispatch, stacked in its program, and as its output.
    """
    copies = 1 if num_seeds == 1 or device.platform == "cpu" else 3
    size = copies * num_seeds * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    seeds = f" for each of {num_seeds} seeds" if num_seeds > 1 else ""
    if size > (memory := device_memory(device)):
        raise UserError(
            f"config.model: {num_params:,} parameters{seeds}, with the optimiser's state {size / 2**30:,.0f} GiB, do "
            f"not fit into the {memory / 2**30:,.0f} GiB of the device: choose a smaller variant"
        )


def runs_on(parallel: DataParallel, dtype: jnp.dtype) -> dict[str, Any]:
    """Return the devices, the numerical precision and the versions of packages, as in results.json."""
    return {
        "platform": parallel.devices[0].platform,
        "device_kind": parallel.devices[0].device_kind,
        "devices": len(parallel.devices),
        "dtype": str(dtype),
        "products": "float32 in full" if dtype == jnp.float32 else "bfloat16, summed in float32",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
    }
