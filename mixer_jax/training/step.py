"""The device programs: each runs many training steps, or many evaluation batches, in one dispatch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mixer_jax.augment import Augment
from mixer_jax.data import gather_batch
from mixer_jax.training.packing import Packing
from mixer_jax.training.parallel import AXIS, predecessors

Arrays = dict[str, jax.Array]


class Programs(NamedTuple):
    """The methods of `DeviceFunctions`, each compiled on first use for all devices.

    `train` reuses the memory of its state argument, which is invalid afterwards.
    """

    train: Callable
    evaluate: Callable
    predict: Callable


class TrainState(flax.struct.PyTreeNode):
    """The state of training between two steps.

    Attributes:
      seed: the run's seed, int32, which never changes.
      step: steps done, int32.
      params: the parameters, float32.
      opt_state: the optimiser's state.
      ema_params: the exponential moving average of the parameters over the steps; () if the config asks for none.
    """

    seed: jax.Array
    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any = ()

    @property
    def evaluated(self) -> Any:
        """The parameters that are evaluated: the moving average, or else the parameters themselves."""
        return self.ema_params or self.params


@dataclasses.dataclass(frozen=True)
class DeviceFunctions:
    """The device programs of a run; each runs on every device under `DataParallel`.

    The number of steps is an argument, not a constant. So one compiled program serves dispatches of any length, and a
    dispatch with zero steps compiles the program without training.

    Attributes:
      model: maps images (batch, height, width, channels) to logits (batch, num_classes).
      optimizer: the optimiser, with its learning-rate schedule.
      augment: prepares the images and labels of the input pipeline for the model.
      label_smoothing: the label smoothing of the training loss.
      accumulation_steps: the number of microbatches into which a device splits its shard of a batch.
      ema_decay: the decay of the parameters' exponential moving average; 0 for no average.
      frozen_trunk: whether to train only the head.
      sam_rho: the radius of sharpness-aware minimisation, the length of its ascent step (Foret et al., 2021); 0: off.
      packing: packs the parameters inside `train`; None leaves them as they are.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    augment: Augment
    label_smoothing: float = 0.0
    accumulation_steps: int = 1
    ema_decay: float = 0.0
    frozen_trunk: bool = False
    sam_rho: float = 0.0
    packing: Packing | None = None

    def init(self, seed: jax.Array) -> TrainState:
        """Return the state before the first step, for a seed, int32."""
        key = jax.random.fold_in(jax.random.key(seed), 0)
        params = self.model.init(key, jnp.zeros((1, *self.augment.input_shape)))["params"]
        average = params if self.ema_decay else ()
        return TrainState(seed, jnp.zeros((), jnp.int32), params, self.optimizer.init(self._trained(params)), average)

    def train(
        self, state: TrainState, resident: Arrays, chunk: Arrays, num_steps: jax.Array
    ) -> tuple[TrainState, Arrays]:
        """Take `num_steps` training steps.

        Args:
          state: the state before the steps, the same on every device.
          resident: the arrays that the input pipeline keeps on the device.
          chunk: this device's part of the input pipeline's chunk, arrays (length, batch / devices, ...). With several
            processes, it also holds the `message` of this process, (3,) int32.
          num_steps: the number of steps to take, at most `length`.

        Returns:
          The state after the steps, and their metrics, each over the global batch of a step: the mean `loss` (length,)
          float32; the number of `correct` predictions (length,) int32; and `gradient_norm` (length,) float32, the L2
          norm of the gradient before clipping. The metrics of steps that were not taken are 0. For `correct`, the label
          of a mixed example is its class with the largest weight. With several processes, the metrics also hold
          `message` (3,) int32, the elementwise maximum over all processes.
        """
        chunk = dict(chunk)
        message = chunk.pop("message", None)
        length, batch_size = chunk["indices"].shape
        positions = jax.lax.axis_index(AXIS) * batch_size + jnp.arange(batch_size)

        def body(i, carry):
            state, metrics = carry
            batch = self.augment.train(state.seed, state.step, self._take(resident, chunk, i), positions, predecessors)
            state, step_metrics = self._train_step(state, *batch, positions)
            return state, jax.tree.map(lambda all_steps, value: all_steps.at[i].set(value), metrics, step_metrics)

        dtypes = {"loss": jnp.float32, "correct": jnp.int32, "gradient_norm": jnp.float32}
        metrics = {name: jnp.zeros(length, dtype) for name, dtype in dtypes.items()}
        state = self.packing.pack(state) if self.packing else state
        state, metrics = jax.lax.fori_loop(0, num_steps, body, (state, metrics))
        state = self.packing.unpack(state) if self.packing else state
        if message is not None:
            # The added 0 makes this collective wait for the loop: a CPU would mix it up with the loop's collectives.
            metrics["message"] = jax.lax.pmax(message + jnp.minimum(state.step, 0), AXIS)
        return state, metrics

    def evaluate(self, params: Any, resident: Arrays, chunk: Arrays, num_steps: jax.Array) -> Arrays:
        """Sum the scores of `num_steps` batches over all devices.

        Args:
          params: the parameters.
          resident, chunk: as for `train`, without a message; an example index of -1 marks padding, which is not
            counted.
          num_steps: the number of batches, at most the length of the chunk.

        Returns:
          Scalars: `loss`, the sum of the cross-entropies, float32; `correct`, the number of correct predictions, int32;
          `count`, the number of examples, int32.
        """

        def body(i, sums):
            taken = self._take(resident, chunk, i)
            present, labels = taken["indices"] >= 0, taken["labels"]
            logits: Any = self.model.apply({"params": params}, self.augment.evaluate(taken["images"]))
            targets = jax.nn.one_hot(labels, logits.shape[-1])
            batch = {
                "loss": jnp.sum(jnp.where(present, optax.softmax_cross_entropy(logits, targets), 0.0)),
                "correct": jnp.sum(present & (jnp.argmax(logits, -1) == labels)),
                "count": jnp.sum(present),
            }
            return jax.tree.map(lambda total, value: total + value.astype(total.dtype), sums, batch)

        zeros = {"loss": jnp.float32(0), "correct": jnp.int32(0), "count": jnp.int32(0)}
        return jax.lax.psum(jax.lax.fori_loop(0, num_steps, body, zeros), AXIS)

    def predict(self, params: Any, resident: Arrays, chunk: Arrays, num_steps: jax.Array) -> Arrays:
        """Compute the logits of `num_steps` batches in float32, whatever the dtype of the training.

        Args:
          params, resident, chunk, num_steps: as for `evaluate`.

        Returns:
          `logits` (length, batch, classes) float32 and `labels` (length, batch) int32 of the global batch; they are 0
          for batches that were not computed.
        """
        length, batch_size = chunk["indices"].shape
        model = self.model.clone(dtype=jnp.float32)

        def body(i, outputs):
            taken = self._take(resident, chunk, i)
            with jax.default_matmul_precision("highest"):  # a TPU's default would be bfloat16
                logits = model.apply({"params": params}, self.augment.evaluate(taken["images"]))
            batch = {"logits": logits, "labels": taken["labels"]}
            return jax.tree.map(lambda every, value: every.at[i].set(value.astype(every.dtype)), outputs, batch)

        zeros = {
            "logits": jnp.zeros((length, batch_size, self.augment.num_classes), jnp.float32),
            "labels": jnp.zeros((length, batch_size), jnp.int32),
        }
        outputs = jax.lax.fori_loop(0, num_steps, body, zeros)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, axis=1, tiled=True), outputs)

    def _take(self, resident: Arrays, chunk: Arrays, step: jax.Array) -> Arrays:
        return gather_batch(resident, chunk, step, self.augment.image_shape)

    def _train_step(
        self, state: TrainState, images: jax.Array, targets: jax.Array, positions: jax.Array
    ) -> tuple[TrainState, Arrays]:
        batch, trained = (images, targets, positions), self._trained(state.params)
        metrics, gradients = self._gradients(state, trained, batch)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        if self.sam_rho:
            # The ascent step uses the gradient of the global batch, so that the number of devices changes nothing.
            uphill = optax.tree.scale(self.sam_rho / (metrics["gradient_norm"] + 1e-12), gradients)
            _, gradients = self._gradients(state, optax.apply_updates(trained, uphill), batch)
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, trained)
        params = state.params | optax.apply_updates(trained, updates)
        return TrainState(state.seed, state.step + 1, params, opt_state, self._average(state, params)), metrics

    def _trained(self, params: Any) -> Any:
        """Return the part of the parameters that is trained."""
        return {"head": params["head"]} if self.frozen_trunk else params

    def _gradients(self, state: TrainState, trained: Any, batch: tuple[jax.Array, ...]) -> tuple[Arrays, Any]:
        """Return the metrics and the gradient with respect to `trained`, both over the global batch."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(state.seed), 1), state.step)

        def loss_fn(trained, images, targets, positions):
            params = state.params | trained
            params = self.packing.unpack(params) if self.packing else params
            logits: Any = self.model.apply(
                {"params": params}, images, train=True, positions=positions, rngs={"dropout": key}
            )
            correct = jnp.sum(jnp.argmax(logits, -1) == jnp.argmax(targets, -1))
            losses = optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, self.label_smoothing))
            return jnp.mean(losses), correct

        gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
        if self.accumulation_steps == 1:
            (loss, correct), gradients = gradient_fn(trained, *batch)
        else:
            parts = jax.tree.map(lambda x: x.reshape(self.accumulation_steps, -1, *x.shape[1:]), batch)
            zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient_fn, trained, *batch))
            ((loss, correct), gradients), _ = jax.lax.scan(
                lambda total, part: (jax.tree.map(jnp.add, total, gradient_fn(trained, *part)), None), zero, parts
            )
            loss, gradients = jax.tree.map(lambda x: x / self.accumulation_steps, (loss, gradients))
        loss, gradients = jax.lax.pmean((loss, gradients), AXIS)
        return {"loss": loss, "correct": jax.lax.psum(correct, AXIS)}, gradients

    def _average(self, state: TrainState, params: Any) -> Any:
        """Return the new moving average; its decay is smaller in early steps, as in TensorFlow with `num_updates`."""
        if not self.ema_decay:
            return ()
        decay = jnp.minimum(self.ema_decay, (1 + state.step) / (10 + state.step))
        return optax.incremental_update(params, state.ema_params, 1 - decay)
