"""Data parallelism over the devices of all processes; the only module that uses pmap."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"  # the axis of devices in a step's collectives (pmean, psum, axis_index)


# The microbatches with which a kind of device is fastest: the byte limit of the largest activation, which then stays in
# the device's fast memory; the minimum number of images, so that matrix products stay large; and a divisor of their
# size. A TPU v5e or v6e ("lite") has 128 MiB of vector memory (VMEM), and pads rows to 8.
MICROBATCH_SIZES = {"cpu": (7 * 2**20, 4, 1), "TPU v5 lite": (56 * 2**20, 8, 8), "TPU v6 lite": (56 * 2**20, 8, 8)}


class DataParallel:
    """Runs the same program on every device, each with its own shard of every batch.

    Attributes:
      devices: all devices, in the order of the shards of a batch.
      local: the devices of this process.
      num_processes: the number of processes that the devices belong to.
      sharding: the sharding of arrays with a leading axis of local devices.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        everyone = [device for process in range(jax.process_count()) for device in jax.local_devices(process)]
        self.devices = tuple(devices or everyone)
        self.local = tuple(device for device in self.devices if device.process_index == jax.process_index())
        self.num_processes = len({device.process_index for device in self.devices})
        mesh = Mesh(np.array(self.local), (AXIS,))  # pmap takes and returns the part of this process
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self.sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def replicate(self, tree: Any) -> Any:
        """Copy host arrays to every local device; a compiled function then does not copy them again."""
        return jax.device_put(tree, self._everywhere)

    def compile(self, function: Callable, donate_state: bool = False) -> Callable:
        """Return a function compiled, on its first call, to run on all devices.

        Args:
          function: a function of `(state, resident, chunk, num_steps)`. The compiled function expects arrays with a
            leading axis of local devices in `chunk`. The other arguments and the result are the same on every device,
            and have no such axis.
          donate_state: let the new state reuse the memory of the old one.
        """
        return jax.pmap(
            function,
            axis_name=AXIS,
            in_axes=(None, None, 0, None),
            out_axes=None,
            devices=self.devices,
            donate_argnums=(0,) if donate_state else (),
        )


def predecessors(tree: Any) -> Any:
    """Return, for each example of the global batch, the one before it; the last example precedes the first.

    To be called inside a function compiled by `DataParallel`.

    Args:
      tree: arrays (batch / devices, ...), a device's shard of the batch.

    Returns:
      Arrays of the same shapes; each device receives one example from the device before.
    """
    num_devices = jax.lax.psum(1, AXIS)
    ring = [(device, (device + 1) % num_devices) for device in range(num_devices)]
    return jax.tree.map(lambda x: jnp.concatenate([jax.lax.ppermute(x[-1:], AXIS, ring), x[:-1]]), tree)


def has_bfloat16(device: jax.Device) -> bool:
    """Return whether a device multiplies in bfloat16: TPUs and AMD's GPUs do, and NVIDIA's from capability 8.0 on."""
    if device.platform == "gpu":
        capability = str(getattr(device, "compute_capability", ""))
        # AMD's are called by names such as gfx90a.
        return float(capability) >= 8.0 if re.fullmatch(r"[\d.]+", capability) else True
    return device.platform != "cpu"


def microbatches(device_kind: str, num_images: int, widest: int) -> int:
    """Return the number of microbatches with which a device is fastest: 1, unless its kind is in `MICROBATCH_SIZES`.

    Args:
      device_kind: the kind of the device.
      num_images: the number of images in the device's shard of a batch.
      widest: the size in bytes of the largest activation for one image.
    """
    if device_kind not in MICROBATCH_SIZES:
        return 1
    most_bytes, fewest, multiple = MICROBATCH_SIZES[device_kind]
    sizes = range(fewest, min(max(most_bytes // widest, fewest), num_images) + 1, multiple)
    return num_images // max((size for size in sizes if num_images % size == 0), default=num_images)


def to_host(tree: Any) -> Any:
    """Copy replicated device arrays to NumPy arrays, which stay valid when the device arrays are donated."""
    return jax.tree.map(lambda x: np.array(x), tree)


def program_bytes(program: jax.stages.Compiled) -> int | None:
    """Return the bytes that a program needs on a device, including its arguments; None if XLA does not say."""
    sizes = program.memory_analysis()
    if sizes is None:
        return None
    needed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return needed - sizes.alias_size_in_bytes
