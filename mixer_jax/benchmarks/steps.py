"""This library's side of a benchmark: training steps, the training loop, augmentation and the forward pass."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.augment import Augment
from mixer_jax.benchmarks.flops import training_flops
from mixer_jax.benchmarks.rounds import Work
from mixer_jax.config import default_config
from mixer_jax.training import Trainer
from mixer_jax.training.epoch import FEWEST_STEPS, DispatchLength, Sums, train_steps
from mixer_jax.training.parallel import program_bytes

STEP, STEP_WITH_POLICY, END_TO_END, POLICY = "step", "step with augmentation", "end to end", "augmentation alone"


def random_dataset(image_shape: tuple[int, int, int], num_classes: int, num_images: int) -> data.Dataset:
    """Return a dataset of random pixels, which cost the same time as real images; all splits are the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, *image_shape), dtype=np.uint8)
    split = data.Split(images, rng.integers(0, num_classes, num_images, dtype=np.int32))
    names = tuple(map(str, range(num_classes)))
    mean, std = ((value,) * image_shape[2] for value in (0.5, 0.25))
    return data.Dataset("random pixels", names, split, split, split, mean, std)


def has_policy(config: ConfigDict) -> bool:
    """Return whether the config augments its images."""
    return without_policy(config).augment.to_dict() != config.augment.to_dict()


def without_policy(config: ConfigDict) -> ConfigDict:
    """Return a copy of the config without augmentation, with the same input size and evaluation crop."""
    plain = config.copy_and_resolve_references()
    plain.augment = default_config().augment
    plain.augment.input_size, plain.augment.eval_crop = config.augment.input_size, config.augment.eval_crop
    return plain


class Ours:
    """A trainer under measurement.

    Attributes:
      trainer: the config's trainer.
      state: the current training state.
      compile_seconds: time to compile the training step, in seconds; meaningful only if the caches of compiled programs
        were empty.
    """

    def __init__(self, trainer: Trainer):
        self.trainer, self.state, self._step = trainer, trainer.init(), 0
        jax.block_until_ready(self.state)
        self._length = DispatchLength(self.trainer.max_steps)
        start = time.perf_counter()
        self.state, _ = self.trainer.train(self.state, 0, 0)
        jax.block_until_ready(self.state)
        self.compile_seconds = time.perf_counter() - start

    @property
    def params(self) -> Any:
        """The parameters as host arrays."""
        return jax.device_get(self.state.params)

    def memory(self) -> int | None:
        """Return the bytes that training needs on a device, data included; None if XLA does not say."""
        return program_bytes(self.trainer.lower("train").compile())

    def step(self) -> Work:
        """Return the workload of training steps in dispatches of the largest length, without fetching metrics."""

        def run(times: int) -> None:
            for start in range(0, times, self.trainer.max_steps):
                num_steps = min(self.trainer.max_steps, times - start)
                self.state, _ = self.trainer.train(self.state, self._step, num_steps)
                self._step += num_steps
            jax.block_until_ready(self.state)

        return self._work(run)

    def end_to_end(self) -> Work:
        """Return the workload of training steps as in the training loop.

        The loop adapts the number of steps per dispatch and fetches metrics.
        """

        def run(times: int) -> None:
            end = self._step + times
            self.state, self._step = train_steps(self.trainer, self.state, self._step, end, self._length, Sums())

        for _ in range(2):
            run(self._length.steps)  # adapts the length of dispatches
        return self._work(run)

    def _work(self, run: Callable[[int], None]) -> Work:
        trainer = self.trainer
        images = trainer.config.batch_size / len(trainer.parallel.devices)
        flops = images * training_flops(trainer.config, trainer.model, trainer.functions.augment.input_shape)
        return Work(run, images, flops, fewest=min(FEWEST_STEPS, trainer.max_steps))

    def forward(self, batch_size: int) -> Work:
        """Return the workload of computing the logits of a batch of `batch_size` images on the device."""
        trainer = self.trainer
        device = trainer.parallel.devices[0]
        params, images = jax.device_put((self.params, normalized_images(trainer, batch_size)), device)
        apply = jax.jit(lambda params, images: trainer.model.apply({"params": params}, images))
        jax.block_until_ready(apply(params, images))

        def run(times: int) -> None:
            jax.block_until_ready([apply(params, images) for _ in range(times)])

        return Work(run, batch_size)

    def logits(self, params: Any, images: np.ndarray) -> np.ndarray:
        """Return the logits (batch, num_classes) of normalised images, computed in float32."""
        model = self.trainer.model.clone(dtype=jnp.float32)
        with jax.default_matmul_precision("highest"):
            return np.asarray(jax.jit(model.apply)({"params": params}, images))


def normalized_images(trainer: Trainer, batch_size: int) -> np.ndarray:
    """Return a training batch as the model's input without augmentation, (batch, height, width, channels) float32."""
    images, _ = examples(trainer.dataset, batch_size)
    return np.asarray(trainer.functions.augment.evaluate(images))


def examples(dataset: data.Dataset, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `n` training images (n, height, width, channels) and labels (n,), repeated if fewer exist."""
    indices = np.resize(np.arange(len(dataset.train)), n)
    return dataset.train.images[indices], dataset.train.labels[indices]


def policy(config: ConfigDict, dataset: data.Dataset, augment: Augment) -> Work:
    """Return the workload of augmenting a batch of a dataset in memory on one device, and nothing else."""
    n = config.batch_size
    batch = {key: x[0] for key, x in data.TrainSampler(len(dataset.train), n, config.seed).batches(0, 1).items()}
    batch |= {"images": dataset.train.images[batch["indices"]], "labels": dataset.train.labels[batch["indices"]]}

    compiled = jax.jit(lambda step, batch: augment.train(config.seed, step, batch, jnp.arange(n)))
    placed = jax.device_put(batch, jax.local_devices()[0])
    jax.block_until_ready(compiled(0, placed))
    return Work(lambda times: jax.block_until_ready([compiled(step, placed) for step in range(times)]), n)
