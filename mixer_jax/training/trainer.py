"""Training, evaluation and prediction of one run on the devices."""

import copy
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data import Dataset, EvalSampler, ResidentPipeline, Sampler, Split, StreamedSplit, StreamingPipeline
from mixer_jax.training.length import with_epochs
from mixer_jax.training.parallel import DataParallel
from mixer_jax.training.schedule import create_schedule
from mixer_jax.training.setup import create_functions, create_sampler, create_shard, require_memory, runs_on
from mixer_jax.training.step import DeviceFunctions, Programs, TrainState

AnySplit = Split | StreamedSplit

MOST_LOGITS = 2**23  # the most logits that a dispatch of `predict` returns


class Scores(NamedTuple):
    """The scores of the predictions for a split.

    Attributes:
      loss: the mean cross-entropy in nats.
      accuracy: the accuracy in percent.
      correct: the number of correct predictions.
      examples: the number of examples.
    """

    loss: float
    accuracy: float
    correct: int
    examples: int


class Trainer:
    """Trains, evaluates and predicts with the model of one run; the constructor compiles and writes nothing.

    Attributes:
      config: the checked config, with the number of epochs filled in.
      dataset: the dataset, with its splits.
      parallel: the devices.
      sampler: chooses the examples of each training batch.
      schedule: the learning rate as a function of the step.
      functions: the device programs before they are compiled, with the model, the optimiser and the augmentation.
      model: the Flax module.
      platform: "cpu", "gpu" or "tpu".
      initial: the parameters to start from, as host arrays, instead of random ones; None until they are set.
      dtype: the dtype of the computation.
      total_steps: the number of training steps of the run.
      max_steps: the largest number of steps in one dispatch.
      ahead: the number of further dispatches that are started before the metrics of a dispatch are fetched.
      num_params: the number of parameters of the model.
      programs: the compiled device programs.
      state_shapes: the shapes and dtypes of the training state.
      runs_on: the devices, dtype and versions, as in results.json.
    """

    def __init__(self, config: ConfigDict, dataset: Dataset, devices: Sequence[jax.Device] | None = None):
        """Set up the training that a checked config describes, by default on the devices of all processes.

        Raises:
          UserError: if the config is inconsistent, or does not fit the data or the devices.
        """
        config = with_epochs(config, len(dataset.train), dataset.num_classes)
        self.config, self.dataset, self.parallel = config, dataset, DataParallel(devices)
        self._shard = create_shard(config, self.parallel)
        self.sampler = create_sampler(config, dataset)
        schedule = create_schedule(config, self.sampler.steps_in)
        self.schedule = jax.jit(schedule)  # without jit, each of its operations would be compiled on its own
        self.total_steps = self.sampler.steps_in(config.epochs)
        self.functions = create_functions(config, dataset, self.parallel, schedule, self.total_steps)
        self.model: Any = self.functions.model
        self.platform = self.parallel.devices[0].platform
        self.dtype = self.model.dtype
        self.runs_on = runs_on(self.parallel, self.dtype)
        # The program runs once: optimising it would take longer than it saves.
        self._init = jax.jit(self.functions.init, compiler_options={"xla_backend_optimization_level": 0})
        self.state_shapes = jax.eval_shape(self._init, np.int32(0))  # raises if the parts do not fit together
        self.num_params = sum(x.size for x in jax.tree.leaves(self.state_shapes.params))
        require_memory(self.state_shapes, self.num_params, config.num_seeds, self.parallel.local[0])
        self.initial: Any = None
        self._placed: dict[AnySplit, dict[str, jax.Array]] = {}
        self.programs = self.compiled(self.functions)
        self._pipeline = self._pipeline_of(dataset.train, self.sampler)
        self.max_steps = self._pipeline.max_steps
        # On the CPUs of several processes, the collectives of two dispatches could run in different orders on different
        # processes.
        self.ahead = 0 if self.platform == "cpu" and self._shard.num_processes > 1 else 1

    def compiled(self, functions: DeviceFunctions) -> Programs:
        """Return the methods of `functions`, each compiled on its first call for all devices."""
        methods = {name: getattr(functions, name) for name in Programs._fields}
        return Programs(*(self.parallel.compile(f, donate_state=name == "train") for name, f in methods.items()))

    def of_seed(self, seed: int) -> "Trainer":
        """Return the trainer of another seed, which shares the programs and the data on the devices."""
        other = copy.copy(self)
        other.config = self.config.copy_and_resolve_references()
        other.config.seed, other.config.num_seeds = seed, 1
        other.sampler = dataclasses.replace(self.sampler, seed=seed)
        other._pipeline = self._pipeline_of(self.dataset.train, other.sampler)
        return other

    def initial_fingerprint(self) -> str:
        """Return a hash of `initial`; if that is None, the hash of an empty string."""
        digest = hashlib.sha256()
        for x in jax.tree.leaves(self.initial):
            digest.update(np.ascontiguousarray(x).tobytes())
        return digest.hexdigest()

    def init(self) -> TrainState:
        """Return the state before the first step, on the devices."""
        state = self._init(np.int32(self.config.seed))
        if (params := self.initial) is not None:  # a new optimiser state does not depend on the parameters
            state = state.replace(params=params, ema_params=params if state.ema_params else ())
        return self.place(state)

    def place(self, tree: Any) -> Any:
        """Copy host arrays to all devices."""
        return self.parallel.replicate(tree)

    def compile(self, state: TrainState) -> tuple[TrainState, float]:
        """Compile the programs of an epoch by running them without steps; return the state and the seconds taken."""
        start = time.perf_counter()
        state, _ = self.train(state, 0, 0)
        next(self._outputs("evaluate", state.evaluated, self.dataset.val, end=0))
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    def learning_rates(self, steps: Sequence[int]) -> dict[int, float]:
        """Return the learning rate of each of the given steps, counted from 1."""
        rates = jax.jit(jax.vmap(self.schedule))(np.array(steps) - 1)
        return dict(zip(steps, np.asarray(rates).tolist(), strict=True))

    def lower(self, name: str, functions: DeviceFunctions | None = None) -> jax.stages.Lowered:
        """Lower a program without computing or placing anything.

        Args:
          name: "train"; or "evaluate", on the validation split; or "predict", on the test split.
          functions: used instead of the trainer's own; they may, for example, have a different model with the same
            parameters.
        """
        programs = self.compiled(functions) if functions else self.programs
        state, pipeline = self.state_shapes, self._pipeline
        if name != "train":
            state, split = state.evaluated, self.dataset.val if name == "evaluate" else self.dataset.test
            pipeline, _ = self._eval_pipeline(split, name)
        rest = jax.eval_shape(lambda: (pipeline.chunk(0, 0), jnp.int32(0)))
        return getattr(programs, name).lower(state, pipeline.resident_shapes, *rest)

    def train(
        self, state: TrainState, step: int, num_steps: int, message: np.ndarray | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Start `num_steps` training steps.

        Args:
          state: the state after `step` steps; its memory is reused.
          step: the number of the first step, from 0.
          num_steps: the number of steps, at most `max_steps`.
          message: int32 (3,), from this process to all processes; see `processes.Agreement`.

        Returns:
          The new state and the metrics of `DeviceFunctions.train`, possibly still being computed.
        """
        chunk = self._pipeline.chunk(step, num_steps)
        if self._shard.num_processes > 1:
            message = np.zeros(3, np.int32) if message is None else message
            chunk = {**chunk, "message": np.broadcast_to(message, (self._shard.num_devices, 3))}
        return self.programs.train(
            state, self._resident(self.dataset.train, self._pipeline), chunk, np.int32(num_steps)
        )

    def evaluate(self, params: Any, split: AnySplit) -> Scores:
        """Return the scores of a split; every example counts once."""
        sums = [output for _, output in self._outputs("evaluate", params, split)]
        loss, correct, count = (sum(each[name] for each in sums).item() for name in ("loss", "correct", "count"))
        return Scores(loss / count, 100.0 * correct / count, correct, count)

    def predict(self, params: Any, split: AnySplit) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits (n, classes) float32 of every example of a split, and its labels (n,) int32."""
        outputs = [(each["logits"][:n], each["labels"][:n]) for n, each in self._outputs("predict", params, split)]
        logits, labels = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
        return logits.reshape(-1, logits.shape[-1])[: len(split)], labels.reshape(-1)[: len(split)]

    def _outputs(self, name: str, params: Any, split: AnySplit, end: int | None = None) -> Iterator[tuple[int, Any]]:
        """Yield the number of steps and the host result of each dispatch of "evaluate" or "predict" over a split."""
        pipeline, steps = self._eval_pipeline(split, name)
        end = steps if end is None else end
        for step in range(0, max(end, 1), pipeline.max_steps):
            n = min(pipeline.max_steps, end - step)
            resident, chunk = self._resident(split, pipeline), pipeline.chunk(step, n)
            yield n, jax.device_get(getattr(self.programs, name)(params, resident, chunk, np.int32(n)))

    def _eval_pipeline(self, split: AnySplit, name: str) -> tuple[ResidentPipeline | StreamingPipeline, int]:
        """Return the pipeline of a split for the program "evaluate" or "predict", and the number of its steps."""
        num_devices = len(self.parallel.devices)
        batch_size = -(-min(self.config.eval_batch_size, len(split)) // num_devices) * num_devices
        sampler = EvalSampler(len(split), batch_size)
        pipeline = self._pipeline_of(split, sampler)
        if name == "predict" and isinstance(pipeline, ResidentPipeline):  # the logits of more steps would fill memory
            fitting = max(MOST_LOGITS // (batch_size * self.dataset.num_classes), 1)
            pipeline.max_steps = min(fitting, sampler.num_steps)
        return pipeline, sampler.num_steps

    def decoding(self) -> str:
        """Return one line on the time that decoding has taken; "" if the training images are in memory."""
        return self._pipeline.decoding() if isinstance(self._pipeline, StreamingPipeline) else ""

    def _pipeline_of(self, split: AnySplit, sampler: Sampler) -> ResidentPipeline | StreamingPipeline:
        if isinstance(split, Split):
            return ResidentPipeline(split, sampler, self._shard)
        threads = self.config.dataset.reader_threads
        return StreamingPipeline(split, sampler, self._shard, self.parallel.sharding, threads)

    def _resident(self, split: AnySplit, pipeline: ResidentPipeline | StreamingPipeline) -> dict[str, jax.Array]:
        """Return what the pipeline keeps on every device, placed there on first use."""
        if split not in self._placed:
            self._placed[split] = self.parallel.replicate(pipeline.resident)
        return self._placed[split]
