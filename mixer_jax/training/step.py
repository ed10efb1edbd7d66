"""What runs on the devices: many training steps, or many evaluation batches, in one dispatch."""

import dataclasses
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mixer_jax.data import gather
from mixer_jax.training.losses import cross_entropy
from mixer_jax.training.parallel import AXIS

Resident = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """All that training carries from one step to the next.

    Attributes:
      step: steps done, int32.
      params: float32.
      opt_state: the optimiser's.
    """

    step: jax.Array
    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class Steps:
    """The device programs of a run; each runs on every device under `DataParallel`.

    They loop over a number of steps that is an argument, not a constant: one compilation serves dispatches of any
    length, and a dispatch of none compiles without training.

    Attributes:
      model: maps (batch, height, width, channels) to logits (batch, num_classes).
      optimizer: what updates the parameters.
      seed: the run's seed.
      mean, std: of the pixels, as fractions of 255, one a channel.
      label_smoothing: of the training loss.
      accumulation_steps: parts in which a device computes its share of a batch.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_smoothing: float = 0.0
    accumulation_steps: int = 1

    def init(self, image_shape: tuple[int, int, int]) -> TrainState:
        """The state before the first step."""
        key = jax.random.fold_in(jax.random.key(self.seed), 0)
        params = self.model.init(key, jnp.zeros((1, *image_shape)))["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params))

    def train(
        self, state: TrainState, resident: Resident, indices: jax.Array, num_steps: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Takes `num_steps` training steps.

        Args:
          state: before; the same on every device.
          resident: the training set.
          indices: (length, batch / devices) int32, this device's examples of each step.
          num_steps: how many of the `length` steps to take.

        Returns:
          The state after, and per step the mean `loss` and the number of `correct` predictions over the global
          batch, each (length,), 0 where no step was taken.
        """
        length, batch_size = indices.shape
        positions = jax.lax.axis_index(AXIS) * batch_size + jnp.arange(batch_size)

        def body(i, carry):
            state, metrics = carry
            state, step_metrics = self._train_step(state, *gather(resident, indices[i]), positions)
            return state, jax.tree.map(lambda all_steps, value: all_steps.at[i].set(value), metrics, step_metrics)

        metrics = {"loss": jnp.zeros(length, jnp.float32), "correct": jnp.zeros(length, jnp.int32)}
        return jax.lax.fori_loop(0, num_steps, body, (state, metrics))

    def evaluate(
        self, params: Any, resident: Resident, indices: jax.Array, num_steps: jax.Array
    ) -> dict[str, jax.Array]:
        """Sums `loss` and `correct` and counts the examples of `num_steps` batches; an index of -1 is no example."""

        def body(i, sums):
            images, labels = gather(resident, indices[i])
            present = indices[i] >= 0
            logits = self.model.apply({"params": params}, self._normalize(images))
            batch = {
                "loss": jnp.sum(jnp.where(present, cross_entropy(logits, labels), 0.0)),
                "correct": jnp.sum(present & (jnp.argmax(logits, -1) == labels)),
                "count": jnp.sum(present),
            }
            return jax.tree.map(lambda total, value: total + value.astype(total.dtype), sums, batch)

        zeros = {
            "loss": jnp.zeros((), jnp.float32),
            "correct": jnp.zeros((), jnp.int32),
            "count": jnp.zeros((), jnp.int32),
        }
        return jax.lax.psum(jax.lax.fori_loop(0, num_steps, body, zeros), AXIS)

    def _train_step(self, state, images, labels, positions):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), 1), state.step)

        def loss_fn(params, images, labels, positions):
            logits = self.model.apply(
                {"params": params}, self._normalize(images), train=True, positions=positions, rngs={"dropout": key}
            )
            correct = jnp.sum(jnp.argmax(logits, -1) == labels)
            return jnp.mean(cross_entropy(logits, labels, self.label_smoothing)), correct

        gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
        batch = (images, labels, positions)
        if self.accumulation_steps == 1:
            (loss, correct), gradients = gradient_fn(state.params, *batch)
        else:
            parts = jax.tree.map(lambda x: x.reshape(self.accumulation_steps, -1, *x.shape[1:]), batch)
            zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient_fn, state.params, *batch))
            ((loss, correct), gradients), _ = jax.lax.scan(
                lambda total, part: (jax.tree.map(jnp.add, total, gradient_fn(state.params, *part)), None), zero, parts
            )
            loss, gradients = jax.tree.map(lambda x: x / self.accumulation_steps, (loss, gradients))
        loss, gradients = jax.lax.pmean((loss, gradients), AXIS)
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "correct": jax.lax.psum(correct, AXIS)}
        return TrainState(state.step + 1, params, opt_state), metrics

    def _normalize(self, images: jax.Array) -> jax.Array:
        """Maps uint8 pixels to float32, the mean taken off and divided by the standard deviation."""
        shape = (1, 1, 1, -1)
        mean, std = jnp.array(self.mean).reshape(shape), jnp.array(self.std).reshape(shape)
        return (images.astype(jnp.float32) / 255.0 - mean) / std
