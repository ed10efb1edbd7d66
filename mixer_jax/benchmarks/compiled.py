"""The resources that a config's programs need on an absent accelerator, as XLA reports them after compiling for it.

Nothing here is measured on a device. Cycles are XLA's estimate, meant for ranking programs for the same chip. The
accuracy of the estimate is not published.
"""

import contextlib
import dataclasses
import re
import resource
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.benchmarks import hlo
from mixer_jax.benchmarks.flops import training_flops
from mixer_jax.benchmarks.paper import PaperMixer, require_paper
from mixer_jax.benchmarks.steps import has_policy, without_policy
from mixer_jax.benchmarks.targets import Chip
from mixer_jax.errors import UserError
from mixer_jax.models import name_of
from mixer_jax.training import Trainer
from mixer_jax.training.parallel import program_bytes

# Numbers of training and test images, image shape and number of classes of datasets that need not be available.
KNOWN = {
    "digits": (1437, 360, (8, 8, 1), 10),
    "mnist": (60_000, 10_000, (28, 28, 1), 10),
    "fashion_mnist": (60_000, 10_000, (28, 28, 1), 10),
    "cifar10": (50_000, 10_000, (32, 32, 3), 10),
    "cifar100": (50_000, 10_000, (32, 32, 3), 100),
    "folder": (1_281_167, 50_000, (224, 224, 3), 1000),  # ImageNet-1k as an example
}
VERSIONS = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
STEP, PLAIN, STILL = "training", "training, not augmented", "training, nothing random"
PAPER = "training by the paper's code, nothing random"


def stand_in(config: ConfigDict, chip: Chip, shape: tuple[int, ...] | None, num_images: int | None) -> data.Dataset:
    """Return a dataset with the sizes of the config's dataset, but without its pixels.

    The dataset is streamed if a run on the chip would stream it.

    Args:
      config: the complete config.
      chip: its memory decides whether the dataset is streamed.
      shape: (height, width, channels, classes), or None for those of the config's dataset.
      num_images: training images, including the held-out validation images; None for those of the config's dataset.

    Raises:
      UserError: if the dataset's sizes are not known, and `shape` or `num_images` is None.
    """
    if config.dataset.name not in KNOWN and not (shape and num_images):
        raise UserError(
            f"config.dataset.name={config.dataset.name}: its sizes are not known: give image_size, channels, "
            "num_classes and num_images"
        )
    train, test, image_shape, num_classes = KNOWN.get(config.dataset.name, (0, 10_000, (), 0))
    size = data.given_size(config.dataset.image_size)
    if shape:
        *image_shape, num_classes = shape
    elif size != ():
        image_shape = (*(size or 2 * data.SIDES[-1:]), image_shape[-1])
    held_out = 0 if config.dataset.val_split else round((num_images or train) * config.dataset.val_fraction)
    sizes = {"train": (num_images or train) - held_out, "val": held_out or test, "test": test}
    budget = config.dataset.memory_budget_gib
    budget = chip.memory / 4 if budget is None else budget * 2**30
    streamed = sum(sizes.values()) * np.prod(image_shape) > budget
    splits = {name: _split(size, tuple(image_shape), streamed) for name, size in sizes.items()}
    names = tuple(map(str, range(num_classes)))
    mean, std = ((value,) * image_shape[-1] for value in (0.5, 0.25))
    return data.Dataset(config.dataset.name, names, **splits, mean=mean, std=std)


def _split(size: int, shape: tuple[int, int, int], streamed: bool) -> data.Split | data.StreamedSplit:
    if streamed:
        return data.StreamedSplit(range(size), shape)  # type: ignore[arg-type]  # only its length is used
    # Broadcasting one image to all takes no memory.
    return data.Split(np.broadcast_to(np.zeros((1, *shape), np.uint8), (size, *shape)), np.zeros(size, np.int32))


def compile_for(
    config: ConfigDict, name: str, chip: Chip, devices: Sequence[jax.Device], dataset: data.Dataset, against: str | None
) -> dict[str, Any]:
    """Compile a config's programs for absent devices, and report XLA's analysis of them.

    Args:
      config: the complete config.
      name: the config's name, for the report.
      chip, devices: from `targets.describe`.
      dataset: what `stand_in` returns.
      against: "plain" adds the training step without augmentation. "paper" adds two training steps without randomness,
        one with this library's model and one with the paper's model in plain Flax. The second computes the whole batch
        at once, unless the config sets `accumulation_steps`. None adds nothing.

    Returns:
      The report, serializable as JSON.
    """
    trainer = Trainer(config, dataset, devices)
    images = config.batch_size // len(devices)
    flops = images * training_flops(config, trainer.model, trainer.functions.augment.input_shape)
    report = {
        "config": name,
        "target": f"{len(devices)} x {chip.name}",
        "chip": dataclasses.asdict(chip),
        "model": name_of(config.model, trainer.model),
        "num_params": trainer.num_params,
        "image_shape": trainer.functions.augment.input_shape,
        "batch_size": config.batch_size,
        "microbatches": trainer.functions.accumulation_steps,
        "dtype": str(trainer.dtype),
        "streamed": dataset.streamed,
        "set_bytes": 0 if dataset.streamed else dataset.train.images.size,
        "flops": flops,
        "versions": dict(_versions()),
    }
    programs = {STEP: ("train", trainer, None), "evaluation": ("evaluate", trainer, None)}
    still = without_policy(config)
    if against == "plain" and has_policy(config):
        programs[PLAIN] = ("train", Trainer(still, dataset, devices), None)
    if against == "paper":
        require_paper(trainer.model)
        still.model.update(dropout_rate=0.0, stochastic_depth_rate=0.0)
        alone = trainer if still.to_dict() == config.to_dict() else Trainer(still, dataset, devices)
        if alone is not trainer:
            programs[STILL] = ("train", alone, None)
        paper = dataclasses.replace(
            alone.functions, model=PaperMixer(alone.model), accumulation_steps=config.accumulation_steps or 1
        )
        programs[PAPER] = ("train", alone, paper)
    report["programs"] = {
        title: _compiled(each.lower(name, functions), chip, images, flops if name == "train" else 0)
        for title, (name, each, functions) in programs.items()
    }
    cycles = {title: row.get("step_cycles") for title, row in report["programs"].items()}
    pairs = ((STEP, PLAIN), (STILL if STILL in programs else STEP, PAPER))
    report["ratios"] = {
        f"cycles, {over} / {under}": cycles[over] / cycles[under]
        for over, under in pairs
        if cycles.get(over) and cycles.get(under)
    }
    return report


def _versions():
    for name in VERSIONS:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


def _compiled(lowered: jax.stages.Lowered, chip: Chip, images: int, flops: float) -> dict[str, Any]:
    _forget_peak()
    start = time.perf_counter()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"does_not_fit": str(error).splitlines()[0][:300]}
    row: dict[str, Any] = {"compile_seconds": round(time.perf_counter() - start, 1), "host_bytes": _peak()}
    sizes = program.memory_analysis()
    row |= {"device_bytes": program_bytes(program), "argument_bytes": sizes.argument_size_in_bytes}
    row |= {"temporary_bytes": sizes.temp_size_in_bytes, "code_bytes": sizes.generated_code_size_in_bytes}
    if row["device_bytes"] > chip.memory:
        row["does_not_fit"] = f"{row['device_bytes']:,} bytes of {chip.memory:,}"
    row |= hlo.read(program.as_text())
    if not row["step_cycles"]:  # a GPU, for which XLA estimates no cycles
        row["milliseconds_of_moving"] = 1e3 * row["bytes_moved"] / (chip.gigabytes_per_second * 1e9)
    elif chip.gigahertz:
        seconds = row["step_cycles"] / (chip.gigahertz * 1e9)
        row |= {"milliseconds": 1e3 * seconds}
        if flops:
            row |= {
                "images_per_second": images / seconds,
                "percent_of_peak": 100 * flops / seconds / (chip.teraflops * 1e12),
            }
    return row


def _forget_peak() -> None:
    """Reset the peak of this process's memory; Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return the peak of this process's memory in bytes."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
