"""Which examples make up which batch: a pure function of (seed, step)."""

import dataclasses
import functools

import numpy as np

from mixer_jax.data.sources import shuffled


@dataclasses.dataclass(frozen=True)
class BatchPlan:
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

    def indices(self, step: int, num_steps: int) -> np.ndarray:
        """Returns the example indices of `num_steps` batches from `step` on, (num_steps, batch_size) int32."""
        start, stop = step * self.batch_size, (step + num_steps) * self.batch_size
        pieces = [np.empty(0, np.int64)]
        while start < stop:
            epoch, offset = divmod(start, self.num_examples)
            pieces.append(_permutation(self.num_examples, self.seed, epoch)[offset : offset + stop - start])
            start += len(pieces[-1])
        return np.concatenate(pieces).astype(np.int32).reshape(num_steps, self.batch_size)

    def steps(self, epochs: float) -> int:
        """Returns after how many steps every example of that many epochs has been seen."""
        return -(-round(epochs * self.num_examples) // self.batch_size)


@functools.lru_cache(maxsize=2)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    return shuffled(num_examples, seed, epoch + 1)


def evaluation_indices(num_examples: int, batch_size: int) -> np.ndarray:
    """Returns each index once, in order, as (steps, batch_size) int32; the last batch is filled up with -1."""
    steps = -(-num_examples // batch_size)
    indices = np.full(steps * batch_size, -1, np.int32)
    indices[:num_examples] = np.arange(num_examples)
    return indices.reshape(steps, batch_size)
