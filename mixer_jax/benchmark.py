"""Measures what augmentation costs: python -m mixer_jax.benchmark --config configs/cifar10.py [--against torchvision]

Takes turns between the training step without augmentation, the step with the config's policy, and the policy alone;
with `--against torchvision` also the same policy on PIL images, in one process and in a loader of two workers. Each is
measured once a round, so that whatever else the machine does meets all of them alike.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from mixer_jax import cli, data
from mixer_jax.augment import Augment
from mixer_jax.config import default_config
from mixer_jax.errors import UserError, one_of
from mixer_jax.training import Trainer

SECONDS = 1.0  # that a measurement lasts, at least
IMAGES = 2048  # that are measured with, or all of a smaller set
NUM_WORKERS = 2
EPOCH = 100  # batches the loader runs on for; what it has prefetched between rounds is its advantage, and small
STEP, STEP_WITH_POLICY, POLICY = "step alone", "step with policy", "policy alone, compiled"
PIL, LOADER = "policy by torchvision, one process", f"policy by torchvision, {NUM_WORKERS} workers"
ONE_CORE = ", on one core"

Work = Callable[[int], Any]  # does something so many times, to the end


def main(argv: list[str]) -> int:
    """Parses the command line and measures; returns the exit code."""
    values, config, name = cli.parse(argv, _define_flags, __doc__)
    if values.against not in (None, "torchvision"):
        raise one_of("--against", values.against, ["torchvision"])
    output = Path(values.output) if values.output else None
    if output and output.exists():
        raise UserError(f"--output={output} is there already: choose another name")
    config.dataset.memory_budget_gib = 0.0  # streamed: some images are all it takes
    dataset = _some_of(data.load(config.dataset))
    works = _works(config, dataset) | (_torchvision_works(config, dataset) if values.against else {})
    seconds = _measure(works, values.rounds, config.batch_size)
    report = {"config": name, "batch_size": config.batch_size, **_machine(values.against), **_report(seconds)}
    print(_table(report))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("rounds", 7, "how often each is measured", lower_bound=1, flag_values=values)
    flags.DEFINE_string("against", None, "torchvision: which has to be installed", flag_values=values)
    flags.DEFINE_string("output", None, "JSON file to write the measurements to", flag_values=values)


def _some_of(dataset: data.Dataset) -> data.Dataset:
    n = min(IMAGES, len(dataset.train))
    return dataclasses.replace(dataset, train=data.Split(*dataset.train.read(range(n))))


def _augment(config: ConfigDict, dataset: data.Dataset) -> Augment:
    return Augment(
        config.augment,
        image_shape=dataset.image_shape,
        mean=dataset.mean,
        std=dataset.std,
        num_classes=dataset.num_classes,
        seed=config.seed,
    )


def _works(config: ConfigDict, dataset: data.Dataset) -> dict[str, Work]:
    """The training step with and without the policy, and the policy; warmed up."""
    plain = config.copy_and_resolve_references()
    size, eval_crop = config.augment.input_size, config.augment.eval_crop
    plain.augment = default_config().augment
    plain.augment.input_size, plain.augment.eval_crop = size, eval_crop
    augment, n = _augment(config, dataset), config.batch_size
    batch = {key: x[0] for key, x in data.BatchPlan(len(dataset.train), n, config.seed).batches(0, 1).items()}
    batch |= {"images": dataset.train.images[batch["indices"]], "labels": dataset.train.labels[batch["indices"]]}

    def predecessors(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), tree)

    compiled = jax.jit(lambda step, batch: augment.train(step, batch, jnp.arange(n), predecessors))
    placed = jax.device_put(batch, jax.local_devices()[0])
    works = {
        STEP: _training(plain, dataset),
        STEP_WITH_POLICY: _training(config, dataset),
        POLICY: lambda times: jax.block_until_ready([compiled(step, placed) for step in range(times)]),
    }
    for work in works.values():
        work(1)
    return works


def _training(config: ConfigDict, dataset: data.Dataset) -> Work:
    trainer = Trainer(config, dataset)
    state, step = trainer.init(), 0

    def work(times: int) -> None:
        nonlocal state, step
        for start in range(0, times, trainer.max_steps):
            num_steps = min(trainer.max_steps, times - start)
            state, _ = trainer.train(state, step, num_steps)
            step += num_steps
        jax.block_until_ready(state)

    return work


def _torchvision_works(config: ConfigDict, dataset: data.Dataset) -> dict[str, Work]:
    """The same policy as PyTorch projects have it; warmed up."""
    try:
        import torch

        from mixer_jax.interop import torchvision_policy as interop
    except ImportError as error:
        raise UserError(f"--against torchvision: {error}; pip install torch torchvision") from error
    torch.set_num_threads(1)  # as in a worker: the other cores are for the others
    augment = _augment(config, dataset)
    transform = interop.example_transform(
        config.augment, box=augment.box, size=augment.input_shape[:2], mean=dataset.mean, std=dataset.std
    )
    collate = interop.Collate(config.augment.mixing, dataset.num_classes)
    repeated = np.resize(np.arange(len(dataset.train)), EPOCH * config.batch_size)
    augmented = interop.Augmented(dataset.train.images[repeated], dataset.train.labels[repeated], transform)

    def endless(loader: Any) -> Iterator[Any]:
        return itertools.chain.from_iterable(itertools.repeat(loader))

    works = {}
    for name, num_workers in ((PIL, 0), (LOADER, NUM_WORKERS)):
        batches = endless(interop.loader(augmented, config.batch_size, collate, num_workers))
        works[name] = lambda times, batches=batches: [None for _ in itertools.islice(batches, times)]
        works[name](1)
    return works


def _measure(works: dict[str, Work], rounds: int, batch_size: int) -> dict[str, list[float]]:
    """Returns for each work the seconds an image took, round by round."""
    modes: dict[str, tuple[Work, Callable[[], Any]]] = {
        name: (work, contextlib.nullcontext) for name, work in works.items()
    }
    if PIL in works and hasattr(os, "sched_setaffinity"):
        modes |= {name + ONE_CORE: (works[name], _one_core) for name in (POLICY, PIL)}
    times, seconds = {}, {name: [] for name in modes}
    for round_ in tqdm(range(rounds + 1), "rounds", leave=False, disable=None):
        for name, (work, where) in modes.items():
            with where():
                work(1)  # meanwhile what the last one left running comes to its end
                start = time.perf_counter()
                work(times.get(name, 1))
                taken = (time.perf_counter() - start) / times.get(name, 1)
            if round_ == 0:  # only tells how often it fits into SECONDS
                times[name] = math.ceil(SECONDS / taken)
            else:
                seconds[name].append(taken / batch_size)
    return seconds


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keeps all threads of this process on one core; Linux only."""

    def move(cores: set[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)

    before = os.sched_getaffinity(0)
    move({min(before)})
    try:
        yield
    finally:
        move(before)


def _ratio(seconds: dict[str, list[float]], over: str, under: str) -> list[float]:
    """How many times as long the one took as the other, round by round."""
    return [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]


def _report(seconds: dict[str, list[float]]) -> dict[str, Any]:
    ratios = {
        "step with policy / step alone": _ratio(seconds, STEP_WITH_POLICY, STEP),
        "policy alone / step alone": _ratio(seconds, POLICY, STEP),
    }
    if PIL in seconds:
        ratios["throughput of the policy, compiled / torchvision, one process"] = _ratio(seconds, PIL, POLICY)
        ratios["throughput of the policy, compiled / torchvision, workers"] = _ratio(seconds, LOADER, POLICY)
    if PIL + ONE_CORE in seconds:
        ratios["throughput of the policy, compiled / torchvision, on one core"] = _ratio(
            seconds, PIL + ONE_CORE, POLICY + ONE_CORE
        )
    images_per_second = {name: [1 / second for second in rounds] for name, rounds in seconds.items()}
    return {
        "rounds": len(seconds[STEP]),
        "images_per_second": {name: _spread(values) for name, values in images_per_second.items()},
        "ratios": {name: _spread(values) for name, values in ratios.items()},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _machine(against: str | None) -> dict[str, Any]:
    device = jax.local_devices()[0]
    packages = ("jax", "jaxlib", "flax", "numpy", "pillow") + (("torch", "torchvision") if against else ())
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    cpu = re.search(r"model name\s*: (.*)", cpuinfo)
    return {
        "device": f"{jax.local_device_count()} x {device.device_kind}",
        "cpu": f"{os.cpu_count()} cores, {cpu[1] if cpu else platform.processor() or platform.machine()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['config']}, batch {report['batch_size']}; {report['device']}; {report['cpu']}",
        f"median of {report['rounds']} rounds (least to most)",
        "",
    ]
    for name, s in report["images_per_second"].items():
        lines.append(f"{name:48} {s['median']:9,.0f} images/s  ({s['min']:,.0f} to {s['max']:,.0f})")
    lines.append("")
    for name, s in report["ratios"].items():
        lines.append(f"{name:64} {s['median']:7.3g}  ({s['min']:.3g} to {s['max']:.3g})")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
