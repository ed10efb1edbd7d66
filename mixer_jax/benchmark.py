"""Measure training speed and memory: python -m mixer_jax.benchmark --config configs/cifar10.py [--scaling]

With --image_size, with or without a config, the images are random pixels:

    python -m mixer_jax.benchmark --image_size 224 --config.model.variant=B/16 --config.batch_size=256

The workloads are the training step, without and with augmentation; the whole training loop; the augmentation alone; the
forward pass; and a large matmul, which shows what the device can do. Their measurements are interleaved, so that other
load on the machine affects all of them alike. `--against torch` adds the same model and weights in PyTorch, and needs
an optimiser that PyTorch has (`--config.optimizer.name=adamw`); `--against torchvision` also adds the same augmentation
in a PyTorch loader.

`--compile_for v5e:1x1` measures nothing. It compiles the config's programs for an accelerator you do not have, and
reports whether they fit and how long they take to compile. For a TPU (which needs `pip install "jax[tpu]"`), it also
reports how many cycles XLA expects; for a GPU (`--compile_for cuda:h100`, which needs `jax[cuda12]`), how many bytes
the kernels move. With `--compile_for`, `--against paper` adds the model in plain Flax, as in the paper's code, and
`--against plain` the training step without augmentation.

`--reading 1000` measures how fast 1,000 of a dataset's images are read from their files, and with `--against
torchvision` also how fast a PyTorch DataLoader with torchvision's transforms reads the same files.

The model of a published MNIST study, without its dropout:

    --image_size 28 --channels 1 --config.batch_size=32 --config.model.variant=Nano/14 --config.model.num_blocks=10
    --config.model.tokens_mlp_dim=128 --config.model.channels_mlp_dim=128 --config.model.pre_head_norm=False
    --config.model.gelu=exact --config.optimizer.name=adam
"""

import dataclasses
import os
import platform
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
from mixer_jax.benchmarks import compiled, flops, reading, steps, targets
from mixer_jax.benchmarks.rounds import Work, measure, on_one_core, ratio, spread
from mixer_jax.benchmarks.scaling import grid, scaling
from mixer_jax.benchmarks.tables import compiled_table, reading_table, table
from mixer_jax.cache import processor
from mixer_jax.config import default_config
from mixer_jax.errors import UserError, one_of
from mixer_jax.models import name_of
from mixer_jax.models.baselines import BASELINES
from mixer_jax.storage import write_json, writing
from mixer_jax.training import Trainer

SECONDS = 1.0  # the shortest time that a measurement takes
IMAGES = 2048  # to measure on, at most
AGAINST = ("torch", "torchvision")
COMPILED_AGAINST = ("paper", "plain")
PRODUCT = "product of two matrices of side"
ONE_CORE = ", on one core"


def main(argv: list[str]) -> int:
    """Parse the command line, measure, and return the exit code."""
    values, config, name = cli.parse(argv, _define_flags, __doc__, default=default_config())
    valid = COMPILED_AGAINST if values.compile_for else AGAINST
    if values.against not in (None, *valid):
        raise one_of("--against", values.against, valid)
    if config.num_seeds > 1:
        raise UserError(f"config.num_seeds={config.num_seeds}: one run is measured at a time")
    if not all(n.isdecimal() and int(n) for n in values.forward):
        raise UserError(f"--forward={','.join(values.forward)}: give batch sizes, such as 1,16,128")
    if values.reading and (values.against not in (None, "torchvision") or values.compile_for or values.image_size):
        raise UserError("--reading measures the files of a config's dataset, alone or with --against torchvision")
    if values.scaling and (values.compile_for or values.reading):
        raise UserError("--scaling measures training steps: leave out --compile_for and --reading")
    output = Path(values.output) if values.output else None
    if output:
        cli.require_new([output], values.overwrite)
        with writing(output):  # fails before anything is measured
            output.parent.mkdir(parents=True, exist_ok=True)
    if values.reading:
        report = reading.measure_reading(config, values.reading, values.rounds, values.against == "torchvision")
        text = reading_table(report)
    elif config.model.variant in BASELINES:
        raise UserError(f"config.model.variant={config.model.variant}: only a Mixer is measured")
    elif values.compile_for:
        report = _compile_for(values, config, name)
        text = compiled_table(report)
    else:
        report = _measure(values, config, name)
        text = table(report)
    print(text)
    if output:
        write_json(output, report)
    return 1 if any("does_not_fit" in row for row in report.get("programs", {}).values()) else 0


def _measure(values: flags.FlagValues, config: ConfigDict, name: str) -> dict[str, Any]:
    """Measure the training of a config, and return the report."""
    if values.against:
        in_torch = _torch_side(values.against)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves GPU memory for PyTorch
    dataset = _dataset(config, values)
    # Errors come before anything is measured.
    plain = steps.without_policy(config)
    trainer = Trainer(plain, dataset)
    trainers = grid(trainer) if values.scaling else {}
    if values.against:
        in_torch.check(trainer)
    if values.against == "torchvision" and not steps.has_policy(config):
        raise UserError("--against torchvision: this config does not augment its images")
    print("Compiling, and then measuring alternately", flush=True)
    with _compiled_afresh():
        ours = steps.Ours(trainer)
        program_bytes = ours.memory()
        works = _works(config, dataset, ours, values.forward)
        theirs = in_torch.Theirs(ours) if values.against else None
        if theirs:
            kinds = [in_torch.EAGER, in_torch.COMPILED, *[in_torch.AUTOCAST] * values.autocast]
            works |= {kind: theirs.step(kind) for kind in kinds}
        if values.against == "torchvision":
            works |= in_torch.torchvision_works(config, dataset, trainer.functions.augment, theirs)
            if hasattr(os, "sched_setaffinity"):
                ours_alone, theirs_alone = steps.POLICY + ONE_CORE, in_torch.PIL + ONE_CORE
                works[ours_alone] = on_one_core(works[steps.POLICY])
                works[theirs_alone] = on_one_core(works[in_torch.PIL], beside=ours_alone)
        seconds = measure(works, values.rounds, SECONDS)
        report = {"config": name, **_described(trainer), "compile_seconds": ours.compile_seconds}
        report |= {"program_bytes": program_bytes, "rounds": values.rounds}
        report |= _numbers(works, seconds)
        if theirs:
            report |= {"logit_difference": theirs.difference, "torch_peak_bytes": in_torch.peak_memory()}
            report["versions"] |= in_torch.versions()
        if values.scaling:
            report["scaling"] = {name: scaling(row, values.rounds, SECONDS) for name, row in trainers.items()}
    return report


def _compile_for(values: flags.FlagValues, config: ConfigDict, name: str) -> dict[str, Any]:
    """Compile a config for an accelerator, and return the report."""
    chip, devices = targets.describe(values.compile_for)
    shape = (values.image_size, values.image_size, values.channels, values.num_classes) if values.image_size else None
    dataset = compiled.stand_in(config, chip, shape, values.num_images)
    with _compiled_afresh():
        return compiled.compile_for(config, name, chip, devices, dataset, values.against)


def _define_flags(define: cli.Define) -> None:
    define.integer("rounds", 7, "measurements of each workload", lower_bound=1)
    define.string("against", None, "also measure torch or torchvision; with --compile_for: paper or plain")
    define.string("compile_for", None, f"compile for an accelerator you do not have: {targets.EXAMPLES}")
    define.integer("reading", None, "measure the reading of this many images from their files", lower_bound=1)
    define.integer("num_images", None, "training images, with --compile_for", lower_bound=1)
    define.boolean("scaling", False, "also measure how time and memory grow with the batch and the depth")
    define.boolean("autocast", True, "also measure PyTorch in bfloat16 (slow on CPUs without it)")
    define.list("forward", ["1", "16", "128"], "batch sizes of the forward pass alone")
    define.integer(
        "image_size",
        None,
        "use images this high and wide instead of the config's: random pixels, or only a shape with --compile_for",
        lower_bound=1,
    )
    define.integer("channels", 3, "of the images of --image_size", lower_bound=1)
    define.integer("num_classes", 10, "of the images of --image_size", lower_bound=1)
    define.output("JSON file to write the measurements to")


def _torch_side(against: str) -> Any:
    try:
        from mixer_jax.benchmarks import in_torch

        if against == "torchvision":
            from mixer_jax.interop import torchvision_policy  # noqa: F401
    except ImportError as error:
        raise UserError(f"--against {against}: {error}; pip install {' '.join(AGAINST)}") from error
    return in_torch


def _dataset(config: ConfigDict, values: flags.FlagValues) -> data.Dataset:
    """Return a dataset in memory to measure on: images of the config's dataset, or random pixels."""
    if not values.config and not values.image_size:
        raise UserError("give a config with --config, or a size of random images with --image_size")
    if values.image_size:
        shape = (values.image_size, values.image_size, values.channels)
        return steps.random_dataset(shape, values.num_classes, max(IMAGES // 4, config.batch_size))
    config.dataset.memory_budget_gib = 0.0  # streamed, because only some images are read
    dataset = data.load(config.dataset)
    some = range(min(IMAGES, len(dataset.train)))
    split = data.Split(*dataset.train.read(some))
    return dataclasses.replace(dataset, train=split, val=split, test=split)


@contextmanager
def _compiled_afresh() -> Iterator[None]:
    """Use a cache of compiled programs that is empty at first.

    This way, the first compilation of a program is timed in full; the second one, for its analysis, takes little time.
    """
    before = jax.config.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", before)
            compilation_cache.reset_cache()


def _works(config: ConfigDict, dataset: data.Dataset, ours: steps.Ours, forward: list[str]) -> dict[str, Work]:
    """Return this library's workloads by name."""
    trainer = ours.trainer
    works = {steps.STEP: ours.step()}
    if steps.has_policy(config):
        with_policy = steps.Ours(Trainer(config, dataset))
        works |= {
            steps.STEP_WITH_POLICY: with_policy.step(),
            steps.END_TO_END: with_policy.end_to_end(),
            steps.POLICY: steps.policy(config, dataset, with_policy.trainer.functions.augment),
        }
    else:
        works[steps.END_TO_END] = ours.end_to_end()
    for batch_size in forward:
        works[f"forward, batch {batch_size}"] = ours.forward(int(batch_size))
    product, side = flops.matrix_product(trainer.parallel.devices[0], trainer.dtype)
    return works | {f"{PRODUCT} {side}": product}


def _numbers(works: dict[str, Work], seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return times, throughput per device, and their ratios."""
    product = next(name for name in works if name.startswith(PRODUCT))
    rates = {name: [works[name].flops / s for s in seconds[name]] for name in (steps.STEP, product)}
    step = steps.STEP_WITH_POLICY if steps.STEP_WITH_POLICY in works else steps.STEP  # the step that the loop runs
    pairs = [(steps.END_TO_END, step)]
    if step != steps.STEP:
        pairs += [(step, steps.STEP), (steps.POLICY, steps.STEP)]
    ratios = {f"time, {over} / {under}": ratio(seconds, over, under) for over, under in pairs}
    for name, work in works.items():
        if work.beside:
            ratios[f"images/s, {work.beside} / {name}"] = ratio(seconds, name, work.beside)
    return {
        "milliseconds": {name: spread([1e3 * s for s in times]) for name, times in seconds.items()},
        "images_per_second": {
            name: spread([work.images / s for s in seconds[name]]) for name, work in works.items() if work.images
        },
        "flops": {
            "step": works[steps.STEP].flops,
            "gflop_per_second": spread([rate / 1e9 for rate in rates[steps.STEP]]),
            "percent_of_product": spread([100 * a / b for a, b in zip(rates[steps.STEP], rates[product], strict=True)]),
        },
        "ratios": {name: spread(values) for name, values in ratios.items()},
    }


def _described(trainer: Trainer) -> dict[str, Any]:
    config, device = trainer.config, trainer.parallel.devices[0]
    return {
        "model": name_of(config.model, trainer.model),
        "num_params": trainer.num_params,
        "image_shape": trainer.functions.augment.input_shape,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer.name,
        "dtype": str(trainer.dtype),
        "device": f"{len(trainer.parallel.devices)} x {device.device_kind}",
        "cpu": f"{os.cpu_count()} cores, {processor('model name')}",
        "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),  # None for a CPU
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("jax", "jaxlib", "flax")},
    }


if __name__ == "__main__":
    cli.run(main)
