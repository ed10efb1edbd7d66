"""The two feeds: how the sampler's batches get to the devices. Both bring the same ones, bit for bit.

A feed gives chunks: arrays (devices, steps, batch / devices, ...) of which each device gets its own in a dispatch of so
many steps. `take` makes a batch of it inside the compiled step.

An image is a row until then, one channel after the other: a TPU pads the last axis to 128 numbers, which of three
channels would make 43 times the bytes, and is slow to sort out channels that alternate.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.data.dataset import Split, StreamedSplit
from mixer_jax.data.sampler import Sampler

Arrays = dict[str, Any]

PIECE = 32  # examples a reader decodes at a time: few, so that all readers work on the same batch
STREAMED_BYTES = 2**25  # of a streamed chunk: as many steps as fit, up to ...
STREAMED_STEPS = 16
GATHERED = 2**14  # numbers of an image that are gathered at a time, at most


@dataclasses.dataclass(frozen=True)
class Shard:
    """What part of each global batch is this process's: all processes have equal parts, in their order.

    Attributes:
      num_devices: this process's.
      process, num_processes: which it is of how many.
    """

    num_devices: int
    process: int = 0
    num_processes: int = 1

    def of(self, batches: Arrays) -> Arrays:
        """Takes this process's part of arrays (steps, batch, ...)."""
        return {key: np.split(x, self.num_processes, axis=1)[self.process] for key, x in batches.items()}

    def over_devices(self, batches: Arrays, length: int) -> Arrays:
        """Lays arrays (steps, part, ...) out as (devices, length, part / devices, ...), the first device first.

        Missing steps are filled up with zeros, not to be looked at.
        """

        def lay_out(x: np.ndarray) -> np.ndarray:
            filled = np.zeros((length, *x.shape[1:]), x.dtype)
            filled[: len(x)] = x
            return np.ascontiguousarray(filled.reshape(length, self.num_devices, -1, *x.shape[2:]).swapaxes(0, 1))

        return {key: lay_out(x) for key, x in batches.items()}


class ResidentPipeline:
    """The images of the whole split lie in the memory of every device; chunks hold indices into them, and the labels.

    Attributes:
      max_steps: the most steps a chunk has.
      resident_shapes: of what every device has to hold.
    """

    max_steps = 256

    def __init__(self, split: Split, sampler: Sampler, shard: Shard):
        numbers = math.prod(split.image_shape)
        self._width = gathered_width(numbers)
        shape = (len(split) * numbers // self._width, self._width)
        self.resident_shapes: Arrays = {"images": jax.ShapeDtypeStruct(shape, np.uint8)}
        self._split, self._sampler, self._shard = split, sampler, shard

    @property
    def resident(self) -> Arrays:
        """What every device has to hold: `images`."""
        return {"images": as_rows(self._split.images).reshape(-1, self._width)}

    def chunk(self, step: int, num_steps: int) -> Arrays:
        """`num_steps` batches from `step` on, filled up to `max_steps`."""
        batches = self._shard.of(self._sampler.batches(step, num_steps))
        return self._shard.over_devices(batches | {"labels": self._split.labels[batches["indices"]]}, self.max_steps)


class StreamingPipeline:
    """Images are decoded by parallel threads while the devices compute, and sent ahead to them.

    Memory stays flat: about two chunks wait on the host, and two are on the devices.

    Attributes:
      max_steps: the most steps a chunk has.
      resident, resident_shapes: what every device has to hold: nothing.
    """

    def __init__(
        self, split: StreamedSplit, sampler: Sampler, shard: Shard, sharding: jax.sharding.Sharding, reader_threads: int
    ):
        """Takes the sharding of a chunk, whose leading axis is the devices'."""
        self.resident: Arrays = {}
        self.resident_shapes: Arrays = {}
        self._pieces = _BatchParts(split, sampler, shard)
        fitting = STREAMED_BYTES // (self._pieces.part * math.prod(split.image_shape))
        self.max_steps = min(max(fitting, 1), STREAMED_STEPS)
        self._shard, self._sharding, self._threads = shard, sharding, reader_threads
        self._next = -1
        self._batches: Iterator[Arrays] = iter(())

    def chunk(self, step: int, num_steps: int) -> Arrays:
        """`num_steps` batches from `step` on, filled up to `max_steps`.

        Fastest when steps are asked for one after the other.
        """
        if num_steps and step != self._next:
            self._batches = self._read(step)
        if num_steps:
            self._next = step + num_steps
        batches = [next(self._batches) for _ in range(num_steps)] or [self._pieces.nothing()]
        chunk = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        return jax.device_put(self._shard.over_devices(chunk, self.max_steps), self._sharding)

    def _read(self, step: int) -> Iterator[Arrays]:
        import grain  # only here: it is slow to import, and a set in memory does without it
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags, which this command line is not for
        per_step = self._pieces.per_step
        options = grain.ReadOptions(
            num_threads=self._threads, prefetch_buffer_size=max(self.max_steps * per_step, 2 * per_step, self._threads)
        )
        pieces = grain.MapDataset.source(self._pieces)[step * per_step :].to_iter_dataset(options)
        return iter(pieces.batch(per_step, batch_fn=_concatenate))


class _BatchParts:
    """Batches cut into pieces that are read independently, in the way of a Grain data source."""

    def __init__(self, split: StreamedSplit, sampler: Sampler, shard: Shard):
        self._split, self._sampler, self._shard = split, sampler, shard
        self.part = sampler.batch_size // shard.num_processes
        self.per_step = -(-self.part // PIECE)

    def __len__(self) -> int:
        return self._sampler.num_steps * self.per_step

    def nothing(self) -> Arrays:
        """No step of a batch: the right shapes and types, and a length of 0."""
        batch = self._shard.of(self._sampler.batches(0, 0))
        images = np.empty((0, self.part, math.prod(self._split.image_shape)), np.uint8)
        return batch | {"images": images, "labels": np.empty((0, self.part), np.int32)}

    def __getitem__(self, number: int) -> Arrays:
        """One piece: `images` and `labels` beside what the sampler says, each (1, up to PIECE, ...)."""
        step, piece = divmod(number, self.per_step)
        batch = self._shard.of(self._sampler.batches(step, 1))
        batch = {key: x[:, piece * PIECE : (piece + 1) * PIECE] for key, x in batch.items()}
        images, labels = self._split.read(batch["indices"][0])
        return batch | {"images": as_rows(images)[None], "labels": labels[None]}


def as_rows(images: np.ndarray) -> np.ndarray:
    """Lay images (n, height, width, channels) out as rows (n, channels * height * width), a channel after the other."""
    return np.moveaxis(images, -1, 1).reshape(len(images), -1)


def gathered_width(numbers: int) -> int:
    """Return how wide the parts are that a row of so many numbers is gathered in: all of it, if it is not too wide.

    Of rows wider than some 30,000 bytes XLA copies the whole set to slices at each step on a TPU, to gather from these.
    """
    fitting = [numbers // n for n in range(1, numbers + 1) if numbers % n == 0 and numbers // n <= GATHERED]
    return next((width for width in fitting if width % 128 == 0), fitting[0])


def _concatenate(pieces: list[Arrays]) -> Arrays:
    return {key: np.concatenate([piece[key] for piece in pieces], axis=1) for key in pieces[0]}


def gather_batch(resident: Arrays, chunk: Arrays, step: jax.Array, image_shape: tuple[int, int, int]) -> Arrays:
    """Makes the batch of one of a chunk's steps, of images (height, width, channels), inside the compiled step.

    Returns:
      What the sampler returned, with `images` (batch, height, width, channels) uint8 and `labels` (batch,). For an
      index of -1 they are those of some example, to be masked.
    """
    batch = {key: x[step] for key, x in chunk.items()}
    if resident:
        images = jnp.asarray(resident["images"])
        parts = math.prod(image_shape) // images.shape[1]
        indices = jnp.maximum(batch["indices"], 0)[:, None] * parts + jnp.arange(parts)[None]
        batch["images"] = images.at[indices.ravel()].get(mode="promise_in_bounds")
    height, width, channels = image_shape
    planes = batch["images"].reshape(-1, channels, height, width)
    return batch | {"images": jnp.moveaxis(planes, 1, -1)}
