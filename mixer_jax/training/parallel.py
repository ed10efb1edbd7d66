"""The one module that knows about pmap: data parallelism over the devices of all processes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

CACHE_BYTES = 7 * 2**20  # the largest activation that a CPU's cache serves well, and ...
FEWEST = 4  # ... images a part has at least, whose matrix products are still large
AXIS = "batch"  # the name by which a step's collectives (pmean, psum, axis_index) find the other devices


class DataParallel:
    """The same program on every device, each with its own share of every batch.

    Attributes:
      devices: the devices; their order says which gets which share.
      local: those of this process.
      num_processes: how many processes they belong to.
      sharding: of arrays with a leading axis of local devices.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        everyone = [device for process in range(jax.process_count()) for device in jax.local_devices(process)]
        self.devices = tuple(devices or everyone)
        self.local = tuple(device for device in self.devices if device.process_index == jax.process_index())
        self.num_processes = len({device.process_index for device in self.devices})
        mesh = Mesh(np.array(self.local), (AXIS,))  # what goes in and comes out of pmap is this process's part
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self.sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def replicate(self, tree: Any) -> Any:
        """Places host arrays on every local device, once; passed to a compiled function they are not copied again."""
        return jax.device_put(tree, self._everywhere)

    def compile(self, function: Callable, donate_state: bool = False) -> Callable:
        """Compiles `function(state, resident, shares, num_steps)` to run on all devices.

        `shares` has one entry a local device in its leading axis. The rest is the same on every device and goes in
        un-stacked, and so does the result come out. `donate_state` lets the new state take the old one's memory.
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
    """Each example's predecessor in the global batch, that of the first being the last; inside a compiled function.

    Takes and returns arrays (batch / devices, ...). One example travels from each device to the next.
    """
    num_devices = jax.lax.psum(1, AXIS)
    ring = [(device, (device + 1) % num_devices) for device in range(num_devices)]
    return jax.tree.map(lambda x: jnp.concatenate([jax.lax.ppermute(x[-1:], AXIS, ring), x[:-1]]), tree)


def has_bfloat16(device: jax.Device) -> bool:
    """Return whether a device multiplies in bfloat16: TPUs do, and NVIDIA's cards from compute capability 8.0 on."""
    if device.platform == "gpu":
        capability = getattr(device, "compute_capability", None)
        return capability is None or float(capability) >= 8.0
    return device.platform != "cpu"


def microbatches(platform: str, num_images: int, widest: int) -> int:
    """Return the number of microbatches into which a device splits its images to be fastest.

    Args:
      platform: of the device.
      num_images: in its share of a batch.
      widest: bytes of the largest activation of one image.
    """
    if platform != "cpu":
        return 1
    most = max(CACHE_BYTES // widest, FEWEST)
    sizes = [n for n in range(FEWEST, min(most, num_images) + 1) if num_images % n == 0]
    return num_images // max(sizes, default=num_images)


def to_host(tree: Any) -> Any:
    """Copies replicated device arrays to NumPy arrays that no later donation can touch."""
    return jax.tree.map(lambda x: np.array(x), tree)


def program_bytes(program: jax.stages.Compiled) -> int | None:
    """Return the bytes that a program needs on a device, its arguments and all; None if XLA does not tell."""
    sizes = program.memory_analysis()
    if sizes is None:
        return None
    needed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return needed - sizes.alias_size_in_bytes
