"""The resident feed: the whole set in device memory, batches gathered inside the compiled step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.data.dataset import Split
from mixer_jax.data.plan import BatchPlan


@dataclasses.dataclass(frozen=True)
class ResidentFeed:
    """Brings the plan's batches to the devices as indices into arrays that are there already.

    Attributes:
      plan: which example goes where.
      num_devices: over how many devices each batch is split.
    """

    plan: BatchPlan
    num_devices: int

    def chunk(self, step: int, num_steps: int, length: int) -> np.ndarray:
        """`num_steps` batches from `step` on, filled up to `length` ones: (devices, length, batch / devices) int32."""
        indices = self.plan.indices(step, num_steps)
        return split_over_devices(indices, length, self.num_devices)


def resident(split: Split) -> dict[str, np.ndarray]:
    """What every device holds of a split during the whole run."""
    return {"images": split.images, "labels": split.labels}


def split_over_devices(indices: np.ndarray, length: int, num_devices: int) -> np.ndarray:
    """Lays (steps, batch) out as (devices, length, batch / devices): the first device gets the first examples."""
    steps, batch_size = indices.shape
    filled = np.full((length, batch_size), -1, indices.dtype)
    filled[:steps] = indices
    return np.ascontiguousarray(filled.reshape(length, num_devices, -1).swapaxes(0, 1))


def gather(resident: dict[str, jax.Array], indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes a batch out of the resident arrays, inside the compiled step; -1 gives some example, to be masked."""
    return tuple(jnp.take(resident[key], jnp.maximum(indices, 0), axis=0) for key in ("images", "labels"))
