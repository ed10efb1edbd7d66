"""Puts a config and a dataset together: the model, the optimiser, the plan and the compiled programs of a run."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import models
from mixer_jax.data import BatchPlan, Dataset, ResidentFeed, Split, evaluation_indices, resident, split_over_devices
from mixer_jax.errors import UserError
from mixer_jax.training.optimizer import create_optimizer
from mixer_jax.training.parallel import DataParallel
from mixer_jax.training.schedule import create_schedule
from mixer_jax.training.step import Steps, TrainState

MAX_STEPS_PER_DISPATCH = 256


class Trainer:
    """A run, ready to start; building one compiles nothing and writes nothing.

    Attributes:
      config: the checked config.
      dataset: what it trains on.
      parallel: the devices.
      dtype: of the computation.
      model: the Flax module.
      plan: which example goes into which batch.
      schedule: the learning rate as a function of the step.
      total_steps: when training is over.
      num_params: of the model.
    """

    def __init__(self, config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device] | None = None):
        """Raises `UserError` if the config does not fit itself, the data or the devices."""
        self.config = config
        self.dataset = dataset
        self.parallel = DataParallel(devices)
        self.platform = self.parallel.devices[0].platform
        num_devices = len(self.parallel.devices)
        if config.batch_size % (num_devices * config.accumulation_steps):
            each = f" times {config.accumulation_steps} accumulation_steps" if config.accumulation_steps > 1 else ""
            raise UserError(f"config.batch_size={config.batch_size} is not divisible by {num_devices} devices{each}")
        dtype = config.dtype
        if dtype == "auto":
            dtype = "float32" if self.platform == "cpu" else "bfloat16"
        self.dtype = jnp.dtype(dtype)
        self.model = models.create(
            config.model, num_classes=dataset.num_classes, image_shape=dataset.image_shape, dtype=self.dtype
        )
        self.plan = BatchPlan(len(dataset.train), config.batch_size, config.seed)
        self.total_steps = self.plan.steps(config.epochs)
        self.schedule = create_schedule(config, self.plan.steps)
        optimizer = create_optimizer(config.optimizer, self.schedule)
        self.steps = Steps(
            self.model,
            optimizer,
            config.seed,
            dataset.mean,
            dataset.std,
            config.label_smoothing,
            config.accumulation_steps,
        )
        # The shapes alone: finds what does not fit together without computing anything.
        self.state_shapes = jax.eval_shape(lambda: self.steps.init(dataset.image_shape))
        self.num_params = sum(x.size for x in jax.tree.leaves(self.state_shapes.params))
        self._feed = ResidentFeed(self.plan, num_devices)
        self._placed: dict[Split, dict[str, jax.Array]] = {}
        self._train = self.parallel.compile(self.steps.train, donate_state=True)
        self._evaluate = self.parallel.compile(self.steps.evaluate)

    def init(self) -> TrainState:
        """The state before the first step, on the devices."""
        return self.place(jax.jit(self.steps.init, static_argnums=0)(self.dataset.image_shape))

    def place(self, state: TrainState) -> TrainState:
        """Puts a state of host arrays on the devices."""
        return self.parallel.replicate(state)

    def compile(self, state: TrainState) -> tuple[TrainState, float]:
        """Compiles all programs by taking no steps; returns the state and the seconds it took."""
        start = time.perf_counter()
        state, _ = self.train(state, 0, 0)
        for split in (self.dataset.val, self.dataset.test):  # a program each, where their sizes differ
            self._count(state.params, split, 0)
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    def train(self, state: TrainState, step: int, num_steps: int) -> tuple[TrainState, dict[str, jax.Array]]:
        """Starts `num_steps` steps from `step` on; returns the futures of the state and of `Steps.train`'s metrics."""
        chunk = self._feed.chunk(step, num_steps, MAX_STEPS_PER_DISPATCH)
        return self._train(state, self._resident(self.dataset.train), chunk, np.int32(num_steps))

    def evaluate(self, params: Any, split: Split) -> dict[str, float]:
        """Scores every example of a split once: `loss` (mean), `accuracy` (percent), `correct` and `count`."""
        sums = self._count(params, split, len(split))
        count = int(sums["count"])
        return {
            "loss": float(sums["loss"]) / count,
            "accuracy": 100.0 * int(sums["correct"]) / count,
            "correct": int(sums["correct"]),
            "count": count,
        }

    def _count(self, params: Any, split: Split, num_examples: int) -> dict[str, np.ndarray]:
        num_devices = len(self.parallel.devices)
        batch_size = -(-self.config.eval_batch_size // num_devices) * num_devices
        indices = evaluation_indices(num_examples, batch_size)
        sums = {"loss": 0.0, "correct": 0, "count": 0}
        for start in range(0, max(len(indices), 1), MAX_STEPS_PER_DISPATCH):
            part = indices[start : start + MAX_STEPS_PER_DISPATCH]
            shares = split_over_devices(part, MAX_STEPS_PER_DISPATCH, num_devices)
            result = self._evaluate(params, self._resident(split), shares, np.int32(len(part)))
            sums = jax.tree.map(lambda total, value: total + np.asarray(value), sums, result)
        return sums

    def _resident(self, split: Split) -> dict[str, jax.Array]:
        """The arrays of a split on every device, placed there on first use."""
        if split not in self._placed:
            self._placed[split] = self.parallel.replicate(resident(split))
        return self._placed[split]
