"""How much memory there is, and how much of it a set may take before it is streamed."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax

from mixer_jax.data.sources import Source

GIB = 2**30
processes_here = 1  # of one training that share this machine, as `training.processes.join` finds out
TPU_LANES = 128  # a TPU pads the last axis of an array, here an image's bytes, to a multiple of this


def budget(gib: float | None) -> float:
    """Returns the bytes that a whole set may take on a device: `gib`, or by default what is measured.

    That is a quarter of the memory of the device or of the host, whichever has less: the set is decoded on the host
    first, whose memory is shared by the `processes_here`. CPU devices share it too, and each of them holds the set.
    """
    if gib is not None:
        return gib * GIB
    device, *others = jax.local_devices()
    if device.platform == "cpu":
        return device_memory(device) / 4 / (1 + len(others)) / processes_here
    return min(host_memory() / processes_here, device_memory(device)) / 4


def device_memory(device: jax.Device) -> int:
    """Returns the bytes that a device has; a CPU's are the host's, as are those of one that does not tell."""
    try:
        statistics = device.memory_stats() or {}
    except jax.errors.JaxRuntimeError:  # of a device that is only compiled for
        statistics = {}
    return statistics.get("bytes_limit", host_memory())


def host_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process and others beside it may take: the machine's, or what a container is given.

    Args:
      root: where the file system of the machine begins.
    """
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_container_limits(root)])


def _container_limits(root: Path) -> Iterator[int]:
    """The limits of the control groups that this process is in, of version 2 and of version 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = ("memory", "memory.limit_in_bytes") if controllers else (".", "memory.max")
        here = root / "sys/fs/cgroup" / top
        # Inside a container its own group is the top, and the path may be that of the host.
        below = here / group.lstrip("/")
        for folder in {here, below, *below.parents}:
            try:
                yield int((folder / name).read_text())
            except (OSError, ValueError):  # no such file, or "max"
                continue


def decoded_size(source: Source) -> float:
    """Return the bytes that a source's decoded images take on a device, if all are like its first."""
    if not len(source):
        return 0
    size = source.__getitems__([0])[0][0].nbytes
    if jax.local_devices()[0].platform == "tpu":
        size = -(-size // TPU_LANES) * TPU_LANES
    return len(source) * size
