"""Samplers, which choose the examples of each batch as a pure function of (seed, step)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mixer_jax.data.sources import shuffled


class Sampler(Protocol):
    """The interface of an object that chooses the examples of each batch."""

    @property
    def batch_size(self) -> int:
        """The number of examples in a global batch."""
        ...

    @property
    def num_steps(self) -> int:
        """The number of batches."""
        ...

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Return the description of `num_steps` batches from `step` on.

        Args:
          step: the number of the first batch, from 0.
          num_steps: the number of batches.

        Returns:
          Arrays (num_steps, batch_size) int32. One of them is `indices`, the index of each example in its split, or -1
          for padding.
        """
        ...


@dataclasses.dataclass(frozen=True)
class TrainSampler:
    """Training batches, from a new permutation of the examples in every epoch.

    A batch can contain the end of one epoch and the start of the next. So every batch has the same shape, and no
    example is dropped or repeated within an epoch.

    Attributes:
      num_examples: the number of training examples.
      batch_size: the number of examples in a global batch.
      seed: the run's seed.
    """

    num_examples: int
    batch_size: int
    seed: int
    num_steps = 2**31 - 1  # unlimited, except by the range of an int32

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Return `indices`, and in `epochs` the epoch of each example, from 0; see `Sampler.batches`."""
        start, stop = step * self.batch_size, (step + num_steps) * self.batch_size
        indices = np.empty(stop - start, np.int32)
        epochs = (np.arange(start, stop) // self.num_examples).astype(np.int32)
        for epoch in np.unique(epochs):
            first = max(int(epoch) * self.num_examples, start)
            order = _orders(self.num_examples, self.seed)(int(epoch))
            piece = order[first % self.num_examples :][: stop - first]
            indices[first - start :][: len(piece)] = piece
        shape = (num_steps, self.batch_size)
        return {"indices": indices.reshape(shape), "epochs": epochs.reshape(shape)}

    def steps_in(self, epochs: float) -> int:
        """Return the number of steps that `epochs` epochs take, rounded up."""
        return -(-round(epochs * self.num_examples) // self.batch_size)


@functools.lru_cache(maxsize=64)
def _orders(num_examples: int, seed: int) -> Callable[[int], np.ndarray]:
    """Return the function from an epoch to its permutation. It caches two, because a batch can span two epochs."""
    return functools.lru_cache(maxsize=2)(lambda epoch: shuffled(num_examples, seed, epoch + 1))


@dataclasses.dataclass(frozen=True)
class EvalSampler:
    """Evaluation batches: each example once, in order. The last batch is padded with -1.

    Attributes:
      num_examples: the number of examples in the split.
      batch_size: the number of examples in a global batch.
    """

    num_examples: int
    batch_size: int

    @property
    def num_steps(self) -> int:
        """The number of batches."""
        return -(-self.num_examples // self.batch_size)

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Return `indices`; see `Sampler.batches`."""
        indices = np.arange(step * self.batch_size, (step + num_steps) * self.batch_size, dtype=np.int32)
        return {"indices": np.where(indices < self.num_examples, indices, -1).reshape(num_steps, self.batch_size)}
