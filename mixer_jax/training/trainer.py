"""Puts a config and a dataset together: the model, the optimiser, the plan and the compiled programs of a run."""

import dataclasses
import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax import models
from mixer_jax.augment import Augment
from mixer_jax.cache import cores
from mixer_jax.data import (
    BatchPlan,
    Dataset,
    EvaluationPlan,
    Plan,
    ResidentFeed,
    Share,
    Split,
    StreamedSplit,
    StreamingFeed,
    device_memory,
)
from mixer_jax.errors import UserError
from mixer_jax.training import seeds
from mixer_jax.training.optimizer import create_optimizer, is_entrywise
from mixer_jax.training.packing import Packing
from mixer_jax.training.parallel import DataParallel, has_bfloat16, parts, program_bytes
from mixer_jax.training.schedule import create_schedule
from mixer_jax.training.step import Steps, TrainState

AnySplit = Split | StreamedSplit

VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")
LOGITS = 2**23  # numbers that a dispatch gives, at most, where logits are asked for


class Trainer:
    """A run, ready to start; building one compiles nothing and writes nothing.

    Attributes:
      config: the checked config.
      dataset: what it trains on.
      parallel: the devices.
      dtype: of the computation.
      model: the Flax module.
      seeds: of the runs, one or several, that this trains at once.
      plans: which example goes into which batch, of each seed.
      schedule: the learning rate as a function of the step.
      total_steps: when training is over.
      max_steps: the most that one dispatch takes.
      ahead: dispatches that `train` starts before the one before is done: 0 where it waits for each.
      num_params: of the model.
      runs_on: devices, type of the computation and versions, as results.json has them.
    """

    def __init__(self, config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device] | None = None):
        """Raises `UserError` if the config does not fit itself, the data or the devices."""
        self.config = config
        self.dataset = dataset
        self.parallel = DataParallel(devices)
        self.platform = self.parallel.devices[0].platform
        share = Share(len(self.parallel.local), jax.process_index(), self.parallel.num_processes)
        num_devices = share.num_devices * share.num_processes
        if config.batch_size % (num_devices * (config.accumulation_steps or 1)):
            each = f" times {config.accumulation_steps} accumulation_steps" if config.accumulation_steps > 1 else ""
            raise UserError(f"config.batch_size={config.batch_size} is not divisible by {num_devices} devices{each}")
        dtype = config.dtype
        if dtype == "auto":
            dtype = "bfloat16" if all(map(has_bfloat16, self.parallel.devices)) else "float32"
        self.dtype = jnp.dtype(dtype)
        self.runs_on = {
            "platform": self.platform,
            "device_kind": self.parallel.devices[0].device_kind,
            "devices": num_devices,
            "dtype": str(self.dtype),
            "products": "float32 in full" if self.dtype == jnp.float32 else "bfloat16, summed in float32",
            "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONED},
        }
        augment = Augment(
            config.augment,
            image_shape=dataset.image_shape,
            mean=dataset.mean,
            std=dataset.std,
            num_classes=dataset.num_classes,
        )
        self.model = models.create(
            config.model, num_classes=dataset.num_classes, image_shape=augment.input_shape, dtype=self.dtype
        )
        if config.optimizer.layer_decay < 1 and not isinstance(self.model, models.MlpMixer):
            raise UserError(f"config.optimizer.layer_decay: the {config.model.variant} has no layers to tell apart")
        self.seeds = tuple(range(config.seed, config.seed + config.num_seeds))
        if len(self.seeds) > 1 and dataset.streamed:
            raise UserError(
                f"config.num_seeds={config.num_seeds}: a streamed set feeds one run at a time; raise "
                "config.dataset.memory_budget_gib if it does fit into memory, or train the seeds one after the other"
            )
        self.plans = [BatchPlan(len(dataset.train), config.batch_size, seed) for seed in self.seeds]
        if config.epochs * len(dataset.train) / config.batch_size >= BatchPlan.num_steps:
            raise UserError(f"config.epochs={config.epochs:g} are more steps than an int32 counts: give fewer")
        self.total_steps = self.plans[0].steps(config.epochs)
        self.schedule = create_schedule(config, self.plans[0].steps)
        self.steps = Steps(
            self.model,
            create_optimizer(config.optimizer, self.schedule),
            augment,
            config.label_smoothing,
            config.accumulation_steps
            or parts(self.platform, config.batch_size // num_devices, self.model.widest(augment.input_shape)),
            config.ema_decay,
            config.frozen_trunk,
            config.optimizer.sam_rho,
        )
        if self.platform != "cpu" and is_entrywise(config.optimizer) and not config.frozen_trunk:
            params = models.param_shapes(self.model, augment.input_shape)
            self.steps = dataclasses.replace(self.steps, packing=Packing(params))
        # The shapes alone: finds what does not fit together without computing anything.
        # It runs once: to optimise it would take longer than that makes up for.
        self._init = jax.jit(self._init_all, compiler_options={"xla_backend_optimization_level": 0})
        self.state_shapes = jax.eval_shape(self._init)
        self.num_params = sum(x.size for x in jax.tree.leaves(self.state_shapes.params)) // len(self.seeds)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.state_shapes))
        if size > (memory := device_memory(self.parallel.local[0])):
            raise UserError(
                f"config.model: {self.num_params:,} parameters, with the optimiser's state {size / 2**30:,.0f} GiB, do "
                f"not fit into the {memory / 2**30:,.0f} GiB of the device: choose a smaller variant"
            )
        self._initial: Any = None
        self._share = share
        self._feeds = [self._feed_of(dataset.train, plan) for plan in self.plans]
        self.max_steps = self._feeds[0].max_steps
        self._placed: dict[AnySplit, dict[str, jax.Array]] = {}
        # Several processes on CPUs: the collectives of two dispatches at once would come in another order on each.
        self.ahead = 0 if self.platform == "cpu" and max(len(self.seeds), share.num_processes) > 1 else 1
        self._train = self._compiled(self.steps.train, own_steps=True, at_once=cores() if num_devices == 1 else 1)
        self._evaluate = self._compiled(self.steps.evaluate, own_steps=False, at_once=1)

    def start_from(self, params: Any) -> None:
        """Lets `init` start from these parameters of the model, host arrays, instead of random ones."""
        self._initial = params

    def initial_fingerprint(self) -> str:
        """Return a hash of the parameters that `start_from` was given, or of none."""
        digest = hashlib.sha256()
        for x in jax.tree.leaves(self._initial):
            digest.update(np.ascontiguousarray(x))
        return digest.hexdigest()

    def init(self) -> TrainState:
        """The state before the first step, on the devices; of several seeds the arrays have a leading axis of them."""
        return self.place(self._init() if self._initial is None else self._started(self._init()))

    def _started(self, state: TrainState) -> TrainState:
        """The state with the initial parameters; there is nothing in an optimiser's yet that depends on them."""
        params = jax.tree.map(lambda x, like: np.broadcast_to(x, like.shape), self._initial, state.params)
        return state.replace(params=params, ema_params=params if state.ema_params else ())

    def _init_all(self) -> TrainState:
        if len(self.seeds) == 1:
            return self.steps.init(jnp.int32(self.seeds[0]))
        return jax.vmap(self.steps.init)(jnp.array(self.seeds, jnp.int32))

    def place(self, state: TrainState) -> TrainState:
        """Puts a state of host arrays on the devices."""
        return self.parallel.replicate(state)

    def compile(self, state: TrainState) -> tuple[TrainState, float]:
        """Compiles what an epoch takes, by taking no steps; returns the state and the seconds it took."""
        start = time.perf_counter()
        state, _ = self.train(state, 0, 0)
        self._count(state.evaluated, self.dataset.val, num_steps=0)
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    def memory(self) -> int | None:
        """Bytes that training a single seed needs on its device, data and all; None if XLA does not tell."""
        return program_bytes(self.lower()["training"].compile())

    def lower(self, steps: Steps | None = None) -> dict[str, jax.stages.Lowered]:
        """Lower the programs of an epoch of a single seed, "training" and "evaluation"; computes and places nothing.

        `steps` stand for the trainer's own, with another model of the same parameters.
        """
        steps, split = steps or self.steps, self.dataset.val
        evaluated = self._feed_of(split, self._evaluation_plan(split))
        inputs = {
            "training": (self._compiled(steps.train, True, 1), self.state_shapes, self._feeds[0]),
            "evaluation": (self._compiled(steps.evaluate, False, 1), self.state_shapes.evaluated, evaluated),
        }
        lowered = {}
        for name, (program, state, feed) in inputs.items():
            rest = jax.eval_shape(lambda feed=feed: (feed.chunk(0, 0), jnp.int32(0)))
            lowered[name] = program.lower(state, feed.resident_shapes, *rest)
        return lowered

    def train(
        self,
        state: TrainState,
        step: int,
        num_steps: int,
        going: np.ndarray | None = None,
        said: np.ndarray | None = None,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Starts `num_steps` steps from `step` on; returns the futures of the state and of `Steps.train`'s metrics.

        Of several seeds only those `going`, by default all, take them; on a CPU they are done when this returns. What
        one of several processes has `said`, see `processes.Agreement`, goes along.
        """
        resident, chunk = self._resident(self.dataset.train, self._feeds[0]), self._chunk(step, num_steps)
        if self._share.num_processes > 1:
            seeds = (len(self.seeds),) if len(self.seeds) > 1 else ()
            said = np.zeros(3, np.int32) if said is None else said
            chunk = {**chunk, "said": np.broadcast_to(said, (self._share.num_devices, *seeds, 3))}
        return self._train(state, resident, chunk, self._each(num_steps, going))

    def evaluate(self, params: Any, split: AnySplit) -> list[dict[str, float]]:
        """Scores every example of a split once: `loss` (mean), `accuracy` (percent), `correct` and `count`, by seed."""
        sums = jax.tree.map(np.atleast_1d, self._count(params, split))
        return [
            {
                "loss": float(loss) / int(count),
                "accuracy": 100.0 * int(correct) / int(count),
                "correct": int(correct),
                "count": int(count),
            }
            for loss, correct, count in zip(sums["loss"], sums["correct"], sums["count"], strict=True)
        ]

    def predict(self, params: Any, split: AnySplit) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits (seeds, n, classes) float32 of every example of a split, and its labels (n,) int32."""
        plan = self._evaluation_plan(split)
        feed, parts = self._feed_of(split, plan), []
        if isinstance(feed, ResidentFeed):  # as many steps as do not fill the memory with logits
            feed.max_steps = min(max(LOGITS // (plan.batch_size * self.dataset.num_classes), 1), plan.num_steps)
        predict = self._compiled(self.steps.predict, own_steps=False, at_once=1)
        for step in range(0, plan.num_steps, feed.max_steps):
            num_steps = min(feed.max_steps, plan.num_steps - step)
            chunk = feed.chunk(step, num_steps)
            outputs = jax.device_get(predict(params, self._resident(split, feed), chunk, np.int32(num_steps)))
            if len(self.seeds) == 1:
                outputs = jax.tree.map(lambda x: x[None], outputs)
            parts.append((outputs["logits"][:, :num_steps], outputs["labels"][0, :num_steps]))
        logits = np.concatenate([logits for logits, _ in parts], axis=1)
        labels = np.concatenate([labels for _, labels in parts]).reshape(-1)[: len(split)]
        return logits.reshape(len(logits), -1, logits.shape[-1])[:, : len(split)], labels

    def _each(self, num_steps: int, going: np.ndarray | None = None) -> np.ndarray:
        if len(self.seeds) == 1:
            return np.int32(num_steps)
        return np.where(np.ones(len(self.seeds), bool) if going is None else going, np.int32(num_steps), np.int32(0))

    def _chunk(self, step: int, num_steps: int) -> dict[str, Any]:
        chunks = [feed.chunk(step, num_steps) for feed in self._feeds]
        return chunks[0] if len(chunks) == 1 else jax.tree.map(lambda *each: np.stack(each, axis=1), *chunks)

    def _count(self, params: Any, split: AnySplit, num_steps: int | None = None) -> dict[str, np.ndarray]:
        plan = self._evaluation_plan(split)
        feed, end = self._feed_of(split, plan), plan.num_steps if num_steps is None else num_steps
        sums = {"loss": 0.0, "correct": 0, "count": 0}
        for step in range(0, max(end, 1), feed.max_steps):
            num_steps = min(feed.max_steps, end - step)
            result = self._evaluate(
                params, self._resident(split, feed), feed.chunk(step, num_steps), np.int32(num_steps)
            )
            sums = jax.tree.map(lambda total, value: total + np.asarray(value), sums, result)
        return sums

    def _evaluation_plan(self, split: AnySplit) -> EvaluationPlan:
        num_devices = self._share.num_devices * self._share.num_processes
        batch_size = -(-min(self.config.eval_batch_size, len(split)) // num_devices) * num_devices
        return EvaluationPlan(len(split), batch_size)

    def _compiled(self, function: Callable, own_steps: bool, at_once: int) -> Callable:
        """A program of `Steps` for all seeds; what trains takes `own_steps`, and its state is not needed any more."""
        several = len(self.seeds) > 1
        if several and self.platform != "cpu":
            function = seeds.side_by_side(function, own_steps)
        program = self.parallel.compile(function, donate_state=own_steps)
        if several and self.platform == "cpu":
            program = seeds.on_cores(program, len(self.seeds), own_steps, at_once)
        return program

    def _feed_of(self, split: AnySplit, plan: Plan) -> ResidentFeed | StreamingFeed:
        if isinstance(split, Split):
            return ResidentFeed(split, plan, self._share)
        threads = self.config.dataset.reader_threads
        return StreamingFeed(split, plan, self._share, self.parallel.sharding, threads)

    def _resident(self, split: AnySplit, feed: ResidentFeed | StreamingFeed) -> dict[str, jax.Array]:
        """What the feed keeps on every device, placed there on first use."""
        if split not in self._placed:
            self._placed[split] = self.parallel.replicate(feed.resident)
        return self._placed[split]
