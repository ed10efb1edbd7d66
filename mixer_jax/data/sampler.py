"""Samplers, which choose the examples of each batch as a pure function of (seed, step)."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from mixer_jax.data.sources import shuffled


@dataclasses.dataclass(frozen=True)
class TrainSampler:
    """Training batches, from a new permutation of the examples in every epoch.

    A batch can contain the end of one epoch and the start of the next. So every batch has the same shape, and no
    example is dropped or repeated within an epoch. `batch_size` is the number of examples in a global batch.
    """

    num_examples: int
    batch_size: int
    seed: int
    num_steps = 2**31 - 1  # unlimited, except by the range of an int32

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Return `num_steps` batches from `step` on, as arrays (num_steps, batch_size) int32.

        They are `indices`, the index of each example in its split, and `epochs`, the epoch of each example, from 0.
        """
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
    """Return a function that maps an epoch to its permutation and caches two of them: a batch can span two epochs."""
    return functools.lru_cache(maxsize=2)(lambda epoch: shuffled(num_examples, seed, epoch + 1))


@dataclasses.dataclass(frozen=True)
class EvalSampler:
    """Evaluation batches: each example once, in order. The last batch is padded with -1."""

    num_examples: int
    batch_size: int

    @property
    def num_steps(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def batches(self, step: int, num_steps: int) -> dict[str, np.ndarray]:
        """Return `indices`, which are -1 for padding; see `TrainSampler.batches`."""
        indices = np.arange(step * self.batch_size, (step + num_steps) * self.batch_size, dtype=np.int32)
        return {"indices": np.where(indices < self.num_examples, indices, -1).reshape(num_steps, self.batch_size)}


Sampler = TrainSampler | EvalSampler
