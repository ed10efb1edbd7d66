"""Measures training: python -m mixer_jax.benchmark --config configs/cifar10.py [--against torch] [--scaling]

Without a config, or with --image_size, on images of random pixels:

    python -m mixer_jax.benchmark --image_size 224 --config.model.variant=B/16 --config.batch_size=256

Everything is measured in turns, once a round, so that whatever else the machine does meets all of it alike: the
training step alone, with the config's augmentation, and through the whole loop; the augmentation alone; the forward
pass; a lone matrix product, to say what the device could do. `--against torch` adds the same model with the same
weights in PyTorch, `--against torchvision` the same augmentation in a PyTorch loader too.
"""

import dataclasses
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from mixer_jax import cli, data
from mixer_jax.benchmarks import flops, steps
from mixer_jax.benchmarks.rounds import Work, measure, one_core, ratio, spread
from mixer_jax.benchmarks.scaling import scaling
from mixer_jax.benchmarks.tables import table
from mixer_jax.config import default_config
from mixer_jax.errors import UserError, one_of
from mixer_jax.training import Trainer

SECONDS = 1.0  # that a measurement lasts, at least
IMAGES = 2048  # that are measured with, or all of a smaller set
AGAINST = ("torch", "torchvision")
PRODUCT = "product of two matrices of side"
ONE_CORE = ", on one core"


def main(argv: list[str]) -> int:
    """Parses the command line and measures; returns the exit code."""
    values, config, name = cli.parse(argv, _define_flags, __doc__, default=default_config())
    if values.against not in (None, *AGAINST):
        raise one_of("--against", values.against, AGAINST)
    if config.num_seeds > 1:
        raise UserError(f"config.num_seeds={config.num_seeds}: one run is measured at a time")
    if not all(n.isdecimal() and int(n) for n in values.forward):
        raise UserError(f"--forward={','.join(values.forward)}: give batch sizes, such as 1,16,128")
    output = Path(values.output) if values.output else None
    if output and output.exists():
        raise UserError(f"--output={output} is there already: choose another name")
    if values.against:
        in_torch = _torch_side(values.against)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves torch some of a GPU's memory
    dataset = _dataset(config, values)
    trainer = Trainer(steps.without_policy(config), dataset)  # says what does not fit before anything is measured
    with _compiled_afresh():
        ours = steps.Ours(trainer)
        program_bytes = ours.memory()
        works, num_flops = _works(config, dataset, ours, values.forward)
        theirs = in_torch.Theirs(ours) if values.against else None
        if theirs:
            kinds = [in_torch.EAGER, in_torch.COMPILED, *[in_torch.AUTOCAST] * values.autocast]
            works |= {kind: theirs.step(kind) for kind in kinds}
        if values.against == "torchvision":
            works |= in_torch.torchvision_works(config, dataset, trainer.steps.augment, theirs)
            if hasattr(os, "sched_setaffinity"):
                alone = [dataclasses.replace(works[kind], around=one_core) for kind in (steps.POLICY, in_torch.PIL)]
                works |= dict(zip((steps.POLICY + ONE_CORE, in_torch.PIL + ONE_CORE), alone, strict=True))
        seconds = measure(works, values.rounds, SECONDS)
        report = {"config": name, **_described(trainer), "compile_seconds": ours.compile_seconds}
        report |= {"program_bytes": program_bytes, "peak_bytes": _peak_bytes(trainer), "rounds": values.rounds}
        report |= _numbers(works, seconds, len(trainer.parallel.devices), num_flops)
        if theirs:
            report |= {"logit_difference": theirs.difference, "torch_peak_bytes": in_torch.peak_memory()}
            report["versions"] |= in_torch.versions()
        if values.scaling:
            report["scaling"] = scaling(steps.without_policy(config), dataset, values.rounds, SECONDS)
    print(table(report))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("rounds", 7, "how often each is measured", lower_bound=1, flag_values=values)
    flags.DEFINE_string("against", None, "torch, or torchvision: which has to be installed", flag_values=values)
    flags.DEFINE_boolean(
        "scaling", False, "also how time and memory grow with the batch and the depth", flag_values=values
    )
    flags.DEFINE_boolean(
        "autocast", True, "PyTorch with bfloat16 too, which CPUs without it take long over", flag_values=values
    )
    flags.DEFINE_list("forward", ["1", "16", "128"], "batch sizes of the forward pass alone", flag_values=values)
    flags.DEFINE_integer(
        "image_size", None, "measure on images of random pixels, this high and wide", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer("channels", 3, "of the random images", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("num_classes", 10, "of the random images", lower_bound=1, flag_values=values)
    flags.DEFINE_string("output", None, "JSON file to write the measurements to", flag_values=values)


def _torch_side(against: str) -> Any:
    try:
        from mixer_jax.benchmarks import in_torch

        if against == "torchvision":
            from mixer_jax.interop import torchvision_policy  # noqa: F401
    except ImportError as error:
        raise UserError(f"--against {against}: {error}; pip install {' '.join(AGAINST)}") from error
    return in_torch


def _dataset(config: ConfigDict, values: flags.FlagValues) -> data.Dataset:
    """Images in memory, to measure with: the config's, or random ones."""
    if not values.config and not values.image_size:
        raise UserError("give a config with --config, or a size of random images with --image_size")
    if values.image_size:
        shape = (values.image_size, values.image_size, values.channels)
        return steps.random_dataset(shape, values.num_classes, max(IMAGES // 4, config.batch_size))
    config.dataset.memory_budget_gib = 0.0  # streamed: some images are all it takes
    dataset = data.load(config.dataset)
    some = range(min(IMAGES, len(dataset.train)))
    split = data.Split(*dataset.train.read(some))
    return dataclasses.replace(dataset, train=split, val=split, test=split)


@contextmanager
def _compiled_afresh() -> Iterator[None]:
    """Compiles into an empty cache, so that what is timed is compiled, and what is looked at later is not again."""
    before = jax.config.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", before)
            compilation_cache.reset_cache()


def _works(
    config: ConfigDict, dataset: data.Dataset, ours: steps.Ours, forward: list[str]
) -> tuple[dict[str, Work], dict[str, int]]:
    """Everything of ours that is measured, and the floating-point operations of what has a known number."""
    trainer = ours.trainer
    device = trainer.parallel.devices[0]
    product, side, product_flops = flops.matrix_product(device, trainer.dtype)
    works = {steps.STEP: ours.step(), steps.END_TO_END: ours.end_to_end()}
    if steps.has_policy(config):
        with_policy = steps.Ours(Trainer(config, dataset))
        works |= {
            steps.STEP_WITH_POLICY: with_policy.step(),
            steps.END_TO_END: with_policy.end_to_end(),
            steps.POLICY: steps.policy(config, dataset, with_policy.trainer.steps.augment),
        }
    for batch_size in forward:
        works[f"forward, batch {batch_size}"] = ours.forward(int(batch_size))
    name = f"{PRODUCT} {side}"
    forward_flops = flops.forward_flops(trainer.model, trainer.steps.augment.input_shape)
    step_flops = 3 * forward_flops * config.batch_size // len(trainer.parallel.devices)
    return works | {name: product}, {steps.STEP: step_flops, name: product_flops}


def _numbers(
    works: dict[str, Work], seconds: dict[str, list[float]], num_devices: int, num_flops: dict[str, int]
) -> dict[str, Any]:
    """Times, throughput a device, and what they come to beside each other."""
    product = next(name for name in works if name.startswith(PRODUCT))
    rates = {name: [num_flops[name] / s for s in seconds[name]] for name in num_flops}
    whole = {steps.STEP, steps.STEP_WITH_POLICY, steps.END_TO_END}  # of all devices, where the rest is of one
    devices = {name: num_devices if name in whole else 1 for name in works}
    fastest = steps.STEP_WITH_POLICY if steps.STEP_WITH_POLICY in works else steps.STEP
    ratios = {f"time, {steps.END_TO_END} / {fastest}": ratio(seconds, steps.END_TO_END, fastest)}
    if fastest != steps.STEP:
        ratios[f"time, {fastest} / {steps.STEP}"] = ratio(seconds, fastest, steps.STEP)
        ratios[f"time, {steps.POLICY} / {steps.STEP}"] = ratio(seconds, steps.POLICY, steps.STEP)
    for name in works:  # PyTorch's, which all begin with its name, or are of the policy
        mine = steps.POLICY + ONE_CORE * name.endswith(ONE_CORE) if "policy by" in name else None
        mine = mine or (steps.END_TO_END if "fed" in name else steps.STEP if name.startswith("torch") else None)
        if mine:
            ratios[f"images/s, {mine} / {name}"] = ratio(seconds, name, mine)
    return {
        "milliseconds": {name: spread([1e3 * s for s in times]) for name, times in seconds.items()},
        "images_per_second": {
            name: spread([works[name].images / s / devices[name] for s in times])
            for name, times in seconds.items()
            if works[name].images
        },
        "flops": {
            "step": num_flops[steps.STEP],
            "gflop_per_second": spread([rate / 1e9 for rate in rates[steps.STEP]]),
            "percent_of_product": spread([100 * a / b for a, b in zip(rates[steps.STEP], rates[product], strict=True)]),
        },
        "ratios": {name: spread(values) for name, values in ratios.items()},
    }


def _described(trainer: Trainer) -> dict[str, Any]:
    config, device = trainer.config, trainer.parallel.devices[0]
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    cpu = re.search(r"model name\s*: (.*)", cpuinfo)
    return {
        "model": config.model.variant,
        "num_params": trainer.num_params,
        "image_shape": trainer.steps.augment.input_shape,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer.name,
        "dtype": str(trainer.dtype),
        "device": f"{len(trainer.parallel.devices)} x {device.device_kind}",
        "cpu": f"{os.cpu_count()} cores, {cpu[1] if cpu else platform.processor() or platform.machine()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("jax", "jaxlib", "flax")},
    }


def _peak_bytes(trainer: Trainer) -> int | None:
    """What the device says; a CPU says nothing."""
    statistics = trainer.parallel.devices[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


if __name__ == "__main__":
    cli.run(main)
