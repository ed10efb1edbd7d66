"""Which examples make up which batch: a pure function of (seed, step)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mixer_jax.data.sources import shuffled


class Sampler(Protocol):
    """Chooses the examples of each batch."""

    @property
    def batch_size(self) -> int:
        """Examples in a global batch."""
        ...

    @property
    def num_steps(self) -> int:
        """The number of batches."""
        ...

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Returns what describes `num_steps` batches from `step` on, each (num_steps, batch_size) int32.

        Among it is `indices`, the number of each example in its split, or -1 for none.
        """
        ...


@dataclasses.dataclass(frozen=True)
class TrainSampler:
    """Training batches: a fresh permutation every epoch, batches running on over the end of one into the next.

    So every batch has the same shape, and no example is dropped or repeated within an epoch.

    Attributes:
      num_examples: size of the training set.
      batch_size: examples in a global batch.
      seed: the run's seed.
    """

    num_examples: int
    batch_size: int
    seed: int
    num_steps = 2**31 - 1  # without end, as far as an int32 counts

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """`indices`, and in `epochs` the epoch, from 0, that shows the example; see `Sampler`."""
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

    def steps(self, epochs: float) -> int:
        """Returns after how many steps every example of that many epochs has been seen."""
        return -(-round(epochs * self.num_examples) // self.batch_size)


@functools.lru_cache(maxsize=64)
def _orders(num_examples: int, seed: int) -> Callable[[int], np.ndarray]:
    """The order of each epoch of a seed; the last two are kept, which a batch may be part of."""
    return functools.lru_cache(maxsize=2)(lambda epoch: shuffled(num_examples, seed, epoch + 1))


@dataclasses.dataclass(frozen=True)
class EvalSampler:
    """Each example once, in order; the last batch is filled up with -1.

    Attributes:
      num_examples: size of the split.
      batch_size: examples in a global batch.
    """

    num_examples: int
    batch_size: int

    @property
    def num_steps(self) -> int:
        """Batches that it takes."""
        return -(-self.num_examples // self.batch_size)

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """`indices`; see `Sampler`."""
        indices = np.arange(step * self.batch_size, (step + num_steps) * self.batch_size, dtype=np.int32)
        return {"indices": np.where(indices < self.num_examples, indices, -1).reshape(num_steps, self.batch_size)}
