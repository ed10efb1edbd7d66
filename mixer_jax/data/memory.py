"""The memory of hosts and devices, and the part of it that a dataset can take before it is streamed."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from mixer_jax.data.dataset import Split, StreamedSplit

processes_here = 1  # this run's processes on this machine, counted by `training.processes.join`
TPU_LANES = 128  # a TPU pads the last axis of an array (here the bytes of an image) to a multiple of this


def budget(gib: float | None) -> float:
    """Return how many bytes a dataset can take on a device: `gib` GiB, or the default if `gib` is None.

    The default is a quarter of the memory of the device or of the host, whichever has less. The host counts because the
    dataset is decoded there first. The processes on the host (`processes_here`) share its memory. CPU devices share it
    too, and each of them holds a copy of the dataset.
    """
    if gib is not None:
        return gib * 2**30
    device, *others = jax.local_devices()
    if device.platform == "cpu":
        return device_memory(device) / 4 / (1 + len(others)) / processes_here
    return min(host_memory() / processes_here, device_memory(device)) / 4


def device_memory(device: jax.Device) -> int:
    """Return the memory of a device in bytes.

    A CPU has the memory of the host. A device that does not report its memory is treated in the same way.
    """
    try:
        statistics = device.memory_stats() or {}
    except jax.errors.JaxRuntimeError:  # the device is only a compilation target
        statistics = {}
    return statistics.get("bytes_limit", host_memory())


def host_memory(root: Path = Path("/")) -> int:
    """Return the memory of the host in bytes, which all its processes share.

    It is the memory of the machine, or the limit of the container if that is lower. Tests give another `root`.
    """
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_container_limits(root)])


def _container_limits(root: Path) -> Iterator[int]:
    """Yield the memory limits in bytes of this process's control groups, of version 1 and version 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = ("memory", "memory.limit_in_bytes") if controllers else (".", "memory.max")
        here = root / "sys/fs/cgroup" / top
        # In a container, its own group is the root, and the path in /proc can be the host's. So both places are tried.
        below = here / group.lstrip("/")
        for folder in {here, below, *below.parents}:
            try:
                yield int((folder / name).read_text())
            except (OSError, ValueError):  # no such file, or "max"
                continue


def resident_size(split: Split | StreamedSplit) -> int:
    """Return the number of bytes that the images of a split take on a device, with the padding of a TPU."""
    size = math.prod(split.image_shape)
    if jax.local_devices()[0].platform == "tpu":
        size = -(-size // TPU_LANES) * TPU_LANES
    return len(split) * size
