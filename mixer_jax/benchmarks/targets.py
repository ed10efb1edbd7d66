"""Descriptions of accelerators, which allow compiling programs for absent devices."""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from mixer_jax.errors import UserError, one_of

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """The published properties of a chip.

    Attributes:
      name: the chip's name.
      memory: bytes that a program can use.
      teraflops: peak throughput of matrix products in 10^12 operations per second, in bfloat16, or in float16 for
        chips without bfloat16.
      gigahertz: the clock in which XLA counts cycles; None if not published, or if XLA does not count cycles.
      gigabytes_per_second: memory bandwidth.
      bfloat16: whether the chip computes in bfloat16.
    """

    name: str
    memory: int
    teraflops: float
    gigahertz: float | None
    gigabytes_per_second: float
    bfloat16: bool = True


# Source: https://cloud.google.com/tpu/docs. The clocks are those at which the 128x128 matrix units reach the peak.
TPUS = {
    "v4": Chip("TPU v4", 32 * GIB, 275, 1.05, 1228),
    "v5e": Chip("TPU v5e", int(15.75 * GIB), 197, 1.5, 819),
    "v5": Chip("TPU v5p", 95 * GIB, 459, 1.75, 2765),
    "v6e": Chip("TPU v6e", int(31.25 * GIB), 918, None, 1640),
}
# Source: the makers' data sheets. `LIMITS` holds further properties of a card that XLA needs.
GPUS = {
    "t4": Chip("NVIDIA T4", 15 * GIB, 65, None, 320, bfloat16=False),
    "v100": Chip("NVIDIA V100", 16 * GIB, 125, None, 900, bfloat16=False),
    "a100": Chip("NVIDIA A100", 40 * GIB, 312, None, 1555),
    "h100": Chip("NVIDIA H100", 80 * GIB, 989, None, 3352),
}
LIMITS = {  # compute capability, multiprocessors, GHz, bytes of shared memory per multiprocessor, per block, and of L2
    "t4": ((7, 5), 40, 1.59, 65_536, 65_536, 4_194_304),
    "v100": ((7, 0), 80, 1.53, 98_304, 98_304, 6_291_456),
    "a100": ((8, 0), 108, 1.41, 167_936, 166_912, 41_943_040),
    "h100": ((9, 0), 132, 1.98, 233_472, 232_448, 52_428_800),
}
EXAMPLES = "v5e:1x1, v5e:2x4, v6e:1x1 or cuda:h100"


def describe(target: str) -> tuple[Chip, Sequence[jax.Device]]:
    """Return the chip of a target and its devices, for which programs can be compiled but not run.

    Call this before JAX first looks for devices; otherwise, JAX may wait for a TPU that does not exist.

    Raises:
      UserError: if the target is unknown, or the compiler for it is not installed.
    """
    kind, _, shape = target.partition(":")
    if kind == "cuda":
        return _cuda(shape)
    if kind not in TPUS or not all(side.isdecimal() and int(side) for side in shape.split("x")):
        raise UserError(f"compile_for={target}: give a target such as {EXAMPLES}")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f'compile_for={target}: needs libtpu, which comes with pip install "jax[tpu]"; no TPU is needed'
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # skips waiting for an absent metadata server
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    sides = tuple(int(side) for side in shape.split("x"))
    # Up to four chips belong to one host; larger targets keep the default hosts.
    hosts = {"chips_per_host_bounds": (*sides, 1, 1)[:3]} if math.prod(sides) <= 4 else {}
    return TPUS[kind], _devices(target, platform="tpu", topology_name=target, num_slices=1, **hosts)


def _cuda(card: str) -> tuple[Chip, Sequence[jax.Device]]:
    if card not in GPUS:
        raise one_of("card in compile_for=cuda:CARD", card, GPUS)
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        raise UserError(f'compile_for=cuda:{card}: needs pip install "jax[cuda12]"; no GPU is needed')
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # skips looking for an absent driver
    jax.config.update("jax_platforms", "cpu")
    return GPUS[card], _devices(f"cuda:{card}", platform="cuda", target_config=_target_config(card), topology="1x1x1")


def _target_config(card: str) -> str:
    """Return the description of a card for XLA, a `stream_executor.GpuTargetConfigProto` in text form."""
    chip = GPUS[card]
    (major, minor), cores, gigahertz, shared, shared_of_block, cache = LIMITS[card]
    return f"""
      gpu_device_info {{
        threads_per_block_limit: 1024 threads_per_warp: 32
        threads_per_core_limit: {1024 if (major, minor) == (7, 5) else 2048}
        block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
        registers_per_core_limit: 65536 registers_per_block_limit: 65536
        shared_memory_per_core: {shared} shared_memory_per_block: 49152 shared_memory_per_block_optin: {shared_of_block}
        core_count: {cores} fpus_per_core: {128 if major >= 9 else 64}
        memory_bandwidth: {int(chip.gigabytes_per_second * 1e9)} l2_cache_size: {cache}
        clock_rate_ghz: {gigahertz} device_memory_size: {chip.memory}
        cuda_compute_capability {{ major: {major} minor: {minor} }}
      }}
      platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }} device_description_str: "{chip.name}"
    """


def _devices(target: str, **description) -> Sequence[jax.Device]:
    try:
        return topologies.get_topology_desc(**description).devices
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"compile_for={target}: {str(error).splitlines()[0]}") from error
