"""The PyTorch side of a benchmark: the same model and weights, and torchvision's augmentation; requires torch."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import torch
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.augment import Augment
from mixer_jax.benchmarks.rounds import Work
from mixer_jax.benchmarks.steps import END_TO_END, POLICY, STEP, Ours, examples, normalized_images
from mixer_jax.config import default_config, flat
from mixer_jax.errors import UserError, one_of
from mixer_jax.interop.torch_mixer import to_torch, twin
from mixer_jax.training import Trainer

EAGER, COMPILED, AUTOCAST = "torch", "torch.compile", "torch.compile, bfloat16 autocast"
PIL, LOADER = "augmentation by torchvision", "augmentation by torchvision, in a loader"
FED = "torch.compile, fed by the loader"
TORCH_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
TOLERANCE = 1e-3  # largest difference of the logits, relative to the largest logit
LACKS = ("optimizer.sam_rho", "optimizer.layer_decay", "frozen_trunk")
EPOCH = 100  # batches per loader epoch; batches that the loader prefetches between rounds favour it, but only a little


def refuse(config: ConfigDict, fields: Sequence[str] = LACKS) -> None:
    """Raise `UserError` if a field that the PyTorch side does not support is not at its default."""
    defaults = flat(default_config())
    for field, value in flat(config).items():
        if field in fields and value != defaults[field]:
            raise UserError(f"config.{field}={value}: the PyTorch side supports only the default, {defaults[field]}")


def check(trainer: Trainer) -> None:
    """Raise `UserError` if the trainer uses several devices, or something that the PyTorch side does not support."""
    if trainer.platform not in ("cpu", "gpu"):
        raise UserError(f"against=torch: torch does not run on a {trainer.platform}")
    if trainer.platform == "gpu" and not torch.cuda.is_available():
        raise UserError("against=torch: JAX uses the GPU but this torch has no CUDA: install a CUDA build of torch")
    if len(trainer.parallel.devices) > 1:
        raise UserError("against=torch compares a single device: hide the others, such as with CUDA_VISIBLE_DEVICES=0")
    refuse(trainer.config)
    optimizer_class(trainer.config.optimizer.name)


class Theirs:
    """The PyTorch counterpart of a trainer's model, with the same weights.

    Attributes:
      device: the torch device of the same kind as JAX's, a CPU or a GPU.
      difference: the largest difference between the float32 logits of the two models, relative to the largest logit.
    """

    def __init__(self, ours: Ours):
        """Convert the model of a trainer that passes `check`, and compare the logits.

        Raises:
          RuntimeError: if `difference` is not below TOLERANCE.
        """
        trainer = ours.trainer
        self.device = torch.device("cuda" if trainer.platform == "gpu" else "cpu")
        self._trainer = trainer
        images, rng = normalized_images(trainer, min(trainer.config.batch_size, 8)), np.random.default_rng(0)
        # Noise, because a head of zeros would hide the rest of the model.
        params = jax.tree.map(lambda x: x + 0.05 * rng.standard_normal(x.shape, np.float32), ours.params)
        expected = ours.logits(params, images)
        with torch.no_grad():
            logits = self._model(params).eval()(self._place(images)).cpu().numpy()
        self._params = ours.params
        self.difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
        if not self.difference < TOLERANCE:
            raise RuntimeError(f"the logits of torch differ by {self.difference:.2g} of the largest")
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 if available, as in XLA

    def step(self, kind: str) -> Work:
        """Return the workload of training steps on one batch on the device; `kind` is EAGER, COMPILED or AUTOCAST."""
        batch_size = self._trainer.config.batch_size
        _, labels = examples(self._trainer.dataset, batch_size)
        images, targets = self._place(normalized_images(self._trainer, batch_size)), torch.from_numpy(labels).long()
        work = self._work(kind, itertools.repeat((images, targets.to(self.device))))
        # Comparing bfloat16 with float32 would say nothing about the programs.
        same = (kind == AUTOCAST) == (self._trainer.dtype == "bfloat16")
        return dataclasses.replace(work, beside=STEP if same else None)

    def fed(self, batches: Iterator[Any]) -> Work:
        """Return the workload of training steps on the batches of a loader: pairs of image and target tensors."""
        work = self._work(AUTOCAST if self._trainer.dtype == "bfloat16" else COMPILED, batches)
        return dataclasses.replace(work, beside=END_TO_END)

    def _work(self, kind: str, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> Work:
        config, model = self._trainer.config, self._model(self._params).train()
        step = stepper(config, model, model if kind == EAGER else torch.compile(model), autocast=kind == AUTOCAST)

        def run(times: int) -> None:
            for images, targets in itertools.islice(batches, times):
                loss, _ = step(images.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True))
            loss.item()  # waits for the device

        run(2)
        return Work(run, config.batch_size)

    def _model(self, params: Any) -> torch.nn.Module:
        model = twin(self._trainer.model, self._trainer.functions.augment.input_shape)
        model.load_state_dict(to_torch(params))
        return model.to(self.device)

    def _place(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self.device)


def stepper(
    config: ConfigDict, model: torch.nn.Module, forward: Callable | None = None, autocast: bool = False
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return a function `step(images, targets, rate=None)` that trains a model by one step, as a config says.

    It returns the loss and the logits. Without `rate`, the learning rate is that of the config. `forward`, such
    as the compiled module, computes the logits in place of `model`; `autocast` computes in bfloat16.

    Raises:
      UserError: if PyTorch's side has no optimiser of that name.
    """
    forward = model if forward is None else forward  # a compiled module has no truth value
    device_type, settings = next(model.parameters()).device.type, config.optimizer
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},  # kernels
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        own = {"momentum": settings.momentum or 0.0}
    else:
        b1, b2 = 0.9 if settings.b1 is None else settings.b1, 0.999 if settings.b2 is None else settings.b2
        own = {"betas": (b1, b2), "eps": settings.eps or 1e-8}
    optimizer = optimizer_class(settings.name)(groups, settings.learning_rate, fused=True, **own)

    def step(images: torch.Tensor, targets: torch.Tensor, rate: float | None = None):
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate
        optimizer.zero_grad()
        with torch.autocast(device_type, torch.bfloat16, enabled=autocast):
            logits = forward(images)
            loss = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
        loss.backward()
        if config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        return loss.detach(), logits.detach()

    return step


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Return PyTorch's optimiser class for a config's `optimizer.name`; raise `UserError` if there is none."""
    if name not in TORCH_OPTIMIZERS:
        raise one_of("config.optimizer.name on the PyTorch side", name, TORCH_OPTIMIZERS)
    return TORCH_OPTIMIZERS[name]


def torchvision_works(config: ConfigDict, dataset: data.Dataset, augment: Augment, theirs: Theirs) -> dict[str, Work]:
    """Return the workloads of the config's augmentation as in PyTorch projects, alone and followed by a training step.

    The workloads are `PIL`, which augments in this process; `LOADER`, which augments in one process per core; and
    `FED`, which is `LOADER` followed by the training step.
    """
    from mixer_jax.interop import torchvision_policy as interop

    transform = interop.example_transform(
        config.augment, box=augment.box, size=augment.input_shape[:2], mean=dataset.mean, std=dataset.std
    )
    collate = interop.Collate(config.augment.mixing, dataset.num_classes)
    some = np.resize(np.arange(len(dataset.train)), EPOCH * config.batch_size)
    augmented = interop.Augmented(dataset.train.images, dataset.train.labels, transform)
    augmented = torch.utils.data.Subset(augmented, some)  # each of the loader's processes gets a copy of the images

    def endless(num_workers: int) -> Iterator[Any]:
        loader = interop.loader(augmented, config.batch_size, collate, num_workers)
        return itertools.chain.from_iterable(itertools.repeat(loader))

    def drawn(batches: Iterator[Any]) -> Work:
        with _one_thread():
            next(batches)
        return Work(
            lambda times: [None for _ in itertools.islice(batches, times)],
            config.batch_size,
            beside=POLICY,
            around=_one_thread,
        )

    batches = endless(os.cpu_count() or 1)
    return {PIL: drawn(endless(0)), LOADER: drawn(batches), FED: theirs.fed(batches)}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread in this process, as in a loader's worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Return the versions of torch and, if torch has it, CUDA."""
    return {"torch": torch.__version__} | ({"cuda": torch.version.cuda} if torch.version.cuda else {})


def peak_memory() -> int | None:
    """Return the peak of torch's device memory in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
