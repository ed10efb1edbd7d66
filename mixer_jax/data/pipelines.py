"""The two input pipelines, which bring the sampler's batches to the devices. Their batches are equal, bit for bit.

A pipeline returns chunks. A chunk holds the steps of one dispatch, as arrays (devices, steps, batch / devices, ...),
and each device receives its own part. Inside the compiled step, `gather_batch` takes the batch of one step from the
chunk.

The pipelines store an image as a row, one channel after the other. A TPU pads the last axis to a multiple of 128. With
three channels as the last axis, images would take 43 times the memory. A TPU is also slow at separating interleaved
channels.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.data.dataset import Split, StreamedSplit
from mixer_jax.data.sampler import Sampler

Arrays = dict[str, Any]

PIECE = 32  # examples that a thread decodes at a time; few, so that all threads work on the same batch
STREAMED_BYTES = 2**25  # the most bytes in a streamed chunk, unless one step has more
STREAMED_STEPS = 16  # the most steps in a streamed chunk
GATHERED = 2**14  # the most values of an image that are gathered at a time


@dataclasses.dataclass(frozen=True)
class ProcessShard:
    """This process's part of each global batch: batches are cut into equal parts, one for each process, in order."""

    num_devices: int  # of this process
    process: int = 0
    num_processes: int = 1

    def of(self, batches: Arrays) -> Arrays:
        """Return this process's part of arrays (steps, batch, ...)."""
        return {key: np.split(x, self.num_processes, axis=1)[self.process] for key, x in batches.items()}

    def over_devices(self, batches: Arrays, length: int) -> Arrays:
        """Distribute the batches of this process over its devices.

        Args:
          batches: arrays (steps, part, ...).
          length: the number of steps to pad to, with zeros. Padded steps must be ignored.

        Returns:
          Arrays (devices, length, part / devices, ...). The first device has the first examples.
        """

        def lay_out(x: np.ndarray) -> np.ndarray:
            filled = np.zeros((length, *x.shape[1:]), x.dtype)
            filled[: len(x)] = x
            return np.ascontiguousarray(filled.reshape(length, self.num_devices, -1, *x.shape[2:]).swapaxes(0, 1))

        return {key: lay_out(x) for key, x in batches.items()}


class ResidentPipeline:
    """A pipeline that keeps all images of the split in the memory of every device.

    Its chunks hold the labels, the indices of the images, and the other arrays of the sampler.

    Attributes:
      max_steps: the largest number of steps in a chunk.
      resident_shapes: the shapes and dtypes of `resident`.
    """

    max_steps = 256

    def __init__(self, split: Split, sampler: Sampler, shard: ProcessShard):
        numbers = math.prod(split.image_shape)
        self._width = gathered_width(numbers)
        shape = (len(split) * numbers // self._width, self._width)
        self.resident_shapes: Arrays = {"images": jax.ShapeDtypeStruct(shape, np.uint8)}
        self._split, self._sampler, self._shard = split, sampler, shard

    @property
    def resident(self) -> Arrays:
        """The arrays that every device holds: `images`, uint8, with one or more rows per image."""
        return {"images": as_rows(self._split.images).reshape(-1, self._width)}

    def chunk(self, step: int, num_steps: int) -> Arrays:
        """Return the `num_steps` batches from `step` on, padded to `max_steps`; see `ProcessShard.over_devices`."""
        batches = self._shard.of(self._sampler.batches(step, num_steps))
        return self._shard.over_devices(batches | {"labels": self._split.labels[batches["indices"]]}, self.max_steps)


class StreamingPipeline:
    """A pipeline whose threads decode images while the devices compute.

    Chunks are prefetched to the devices. Memory use is constant: about two chunks are on the host, and two are on the
    devices.

    Attributes:
      max_steps: the largest number of steps in a chunk.
      resident, resident_shapes: empty, because no images stay on the devices.
    """

    def __init__(
        self,
        split: StreamedSplit,
        sampler: Sampler,
        shard: ProcessShard,
        sharding: jax.sharding.Sharding,
        reader_threads: int,
    ):
        """Create the pipeline; `sharding` distributes a chunk over the devices along its leading axis."""
        self.resident: Arrays = {}
        self.resident_shapes: Arrays = {}
        self._pieces = _BatchParts(split, sampler, shard)
        fitting = STREAMED_BYTES // (self._pieces.part * math.prod(split.image_shape))
        self.max_steps = min(max(fitting, 1), STREAMED_STEPS)
        self._shard, self._sharding, self._threads = shard, sharding, reader_threads
        self._next = -1
        self._batches: Iterator[Arrays] = iter(())
        self._waited, self._began = 0.0, time.monotonic()

    def decoding(self) -> str:
        """Return one line on the time that decoding has taken since the first chunk, or "" if no image was decoded."""
        images, seconds = self._pieces.decoded
        if not images:
            return ""
        return (
            f"decoding took {1000 * seconds / images:.1f} ms of CPU time per image; training waited for images "
            f"{100 * self._waited / (time.monotonic() - self._began):.0f}% of the time"
        )

    def chunk(self, step: int, num_steps: int) -> Arrays:
        """Return the `num_steps` batches from `step` on, padded to `max_steps`; see `ProcessShard.over_devices`.

        Reading consecutive steps is fastest. Any other step restarts the readers.
        """
        if num_steps and step != self._next:
            self._batches = self._read(step)
        if num_steps:
            self._next = step + num_steps
        asked = time.monotonic()
        if not self._pieces.decoded[0]:
            self._began = asked
        batches = [next(self._batches) for _ in range(num_steps)] or [self._pieces.nothing()]
        self._waited += time.monotonic() - asked
        chunk = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        return jax.device_put(self._shard.over_devices(chunk, self.max_steps), self._sharding)

    def _read(self, step: int) -> Iterator[Arrays]:
        import grain  # imported here, because it is slow to import and only streaming needs it
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags, which this command line does not set
        per_step = self._pieces.per_step
        options = grain.ReadOptions(
            num_threads=self._threads, prefetch_buffer_size=max(self.max_steps * per_step, 2 * per_step, self._threads)
        )
        pieces = grain.MapDataset.source(self._pieces)[step * per_step :].to_iter_dataset(options)
        return iter(pieces.batch(per_step, batch_fn=_concatenate))


class _BatchParts:
    """Batches cut into pieces that can be read independently, with the interface of a Grain data source.

    Attributes:
      part: the number of examples of a batch that belong to this process.
      per_step: the number of pieces of a batch.
      decoded: the number of images decoded so far, and the CPU time in seconds that this took.
    """

    def __init__(self, split: StreamedSplit, sampler: Sampler, shard: ProcessShard):
        self._split, self._sampler, self._shard = split, sampler, shard
        self.part = sampler.batch_size // shard.num_processes
        self.per_step = -(-self.part // PIECE)
        self.decoded, self._lock = (0, 0.0), threading.Lock()

    def __len__(self) -> int:
        return self._sampler.num_steps * self.per_step

    def nothing(self) -> Arrays:
        """Return empty arrays that are like those of a batch, except that the axis of steps has length 0."""
        batch = self._shard.of(self._sampler.batches(0, 0))
        images = np.empty((0, self.part, math.prod(self._split.image_shape)), np.uint8)
        return batch | {"images": images, "labels": np.empty((0, self.part), np.int32)}

    def __getitem__(self, number: int) -> Arrays:
        """Return one piece: `images`, `labels` and the arrays of the sampler, each (1, up to PIECE, ...)."""
        step, piece = divmod(number, self.per_step)
        batch = self._shard.of(self._sampler.batches(step, 1))
        batch = {key: x[:, piece * PIECE : (piece + 1) * PIECE] for key, x in batch.items()}
        began = time.thread_time()
        images, labels = self._split.read(batch["indices"][0])
        with self._lock:
            number, seconds = self.decoded
            self.decoded = number + len(images), seconds + time.thread_time() - began
        return batch | {"images": as_rows(images)[None], "labels": labels[None]}


def as_rows(images: np.ndarray) -> np.ndarray:
    """Lay images (n, height, width, channels) out as rows (n, channels * height * width), channel by channel."""
    return np.moveaxis(images, -1, 1).reshape(len(images), -1)


def gathered_width(numbers: int) -> int:
    """Return the width of the pieces into which a row of `numbers` values is cut for gathering.

    It is the largest divisor of `numbers` up to GATHERED that is a multiple of 128, or else the largest divisor up to
    GATHERED. If rows are wider than about 30,000 bytes, XLA on a TPU copies the whole dataset into slices at each step,
    and gathers from the slices.
    """
    fitting = [numbers // n for n in range(1, numbers + 1) if numbers % n == 0 and numbers // n <= GATHERED]
    return next((width for width in fitting if width % 128 == 0), fitting[0])


def _concatenate(pieces: list[Arrays]) -> Arrays:
    return {key: np.concatenate([piece[key] for piece in pieces], axis=1) for key in pieces[0]}


def gather_batch(resident: Arrays, chunk: Arrays, step: jax.Array, image_shape: tuple[int, int, int]) -> Arrays:
    """Return the batch of one step of a chunk, inside the compiled step.

    Args:
      resident: the arrays that the pipeline keeps on the device; empty for a streamed dataset.
      chunk: this device's part of a chunk, arrays (steps, batch, ...).
      step: the index of the step in the chunk, an int scalar.
      image_shape: (height, width, channels).

    Returns:
      The arrays of the sampler, with `images` (batch, height, width, channels) uint8 and `labels` (batch,). An index of
      -1 has an arbitrary image and label, to be masked.
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
