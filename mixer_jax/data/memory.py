"""How much memory there is, and how much of it a set may take before it is streamed."""

import os

import jax

from mixer_jax.data.sources import Source

GIB = 2**30
TPU_LANES = 128  # a TPU pads the last axis of an array, here an image's bytes, to a multiple of this


def budget(gib: float | None) -> float:
    """Returns the bytes that a whole set may take on a device: `gib`, or by default what is measured.

    That is a quarter of the memory of the device or of the host, whichever has less: the set is decoded on the host
    first. CPU devices share the host's memory, and each of them holds the set.
    """
    if gib is not None:
        return gib * GIB
    device, *others = jax.local_devices()
    if device.platform == "cpu":
        return device_memory(device) / 4 / (1 + len(others))
    return min(_host_memory(), device_memory(device)) / 4


def device_memory(device: jax.Device) -> int:
    """Returns the bytes that a device has; a CPU's are the host's, as are those of one that does not tell."""
    try:
        statistics = device.memory_stats() or {}
    except jax.errors.JaxRuntimeError:  # of a device that is only compiled for
        statistics = {}
    return statistics.get("bytes_limit", _host_memory())


def _host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def decoded_size(source: Source) -> float:
    """Return the bytes that a source's decoded images take on a device, if all are like its first."""
    if not len(source):
        return 0
    size = source.__getitems__([0])[0][0].nbytes
    if jax.local_devices()[0].platform == "tpu":
        size = -(-size // TPU_LANES) * TPU_LANES
    return len(source) * size
