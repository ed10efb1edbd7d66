"""Resident and streaming bring the same batches, bit for bit; each process reads its own share and no more."""

import re
import threading
import time
import types
from collections import Counter

import jax
import numpy as np
import pytest

from mixer_jax.data import (
    EvalSampler,
    ProcessShard,
    ResidentPipeline,
    StreamedSplit,
    StreamingPipeline,
    TrainSampler,
    gather_batch,
)
from mixer_jax.data.dataset import decode
from mixer_jax.data.pipelines import gathered_width
from mixer_jax.errors import UserError
from mixer_jax.training.parallel import DataParallel
from support import ArraySource, stream

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (70, 6, 5, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 70).astype(np.int32)
MADE = ("made", IMAGES, LABELS, ("a", "b", "c", "d"))


class Watched(ArraySource):
    """Remembers what is read of it, and by whom."""

    def __init__(self):
        super().__init__(*MADE)
        self.__dict__.update(read=[], threads=set())

    def __getitems__(self, indices):
        self.read.extend(int(i) for i in indices)
        self.threads.add(threading.get_ident())
        return super().__getitems__(indices)


def batches_of(pipeline, num_steps, start=0):
    """What the devices make of a pipeline's chunks: per step the global batch."""
    for step in range(start, start + num_steps):
        chunk = jax.device_get(pipeline.chunk(step, 1))
        devices = range(len(chunk["indices"]))
        parts = [
            gather_batch(pipeline.resident, {key: x[d] for key, x in chunk.items()}, 0, IMAGES.shape[1:])
            for d in devices
        ]
        yield {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def pipelines(sampler, source, num_devices=1, process=0, num_processes=1):
    shard = ProcessShard(num_devices, process, num_processes)
    sharding = DataParallel(jax.devices()[:num_devices]).sharding
    resident = ResidentPipeline(decode(source, "images"), sampler, shard)
    return resident, StreamingPipeline(stream(source), sampler, shard, sharding, 4)


@pytest.mark.parametrize("num_devices", [1, 2, 4])
@pytest.mark.parametrize(("batch_size", "gathered"), [(4, 2**14), (4, 20), (48, 2**14)])  # a reader's piece has 32
def test_both_pipelines_bring_the_same_batches(batch_size, gathered, num_devices, monkeypatch):
    monkeypatch.setattr("mixer_jax.data.pipelines.GATHERED", gathered)
    sampler = TrainSampler(70, batch_size, seed=5)
    resident, streaming = pipelines(sampler, Watched(), num_devices)
    assert resident.resident_shapes["images"].shape == {2**14: (70, 90), 20: (350, 18)}[gathered]
    for one, other in zip(batches_of(resident, 40), batches_of(streaming, 40), strict=True):
        assert one.keys() == other.keys()
        for key, x in one.items():
            assert x.dtype == other[key].dtype
            assert np.array_equal(x, other[key])
        assert np.array_equal(one["images"], IMAGES[one["indices"]])
        assert np.array_equal(one["labels"], LABELS[one["indices"]])


def test_a_step_is_the_same_whenever_it_is_asked_for():
    sampler = TrainSampler(70, 8, seed=5)
    _, streaming = pipelines(sampler, Watched())
    straight = list(batches_of(streaming, 12))
    for start in (7, 0, 11, 3):
        again = next(batches_of(streaming, 1, start))
        assert np.array_equal(again["images"], straight[start]["images"])


def test_evaluation_shows_every_example_once():
    sampler = EvalSampler(70, 32)
    resident, streaming = pipelines(sampler, Watched(), 2)
    shown = list(batches_of(streaming, sampler.num_steps))
    for one, other in zip(batches_of(resident, sampler.num_steps), shown, strict=True):
        present = one["indices"] >= 0
        assert np.array_equal(one["indices"], other["indices"])
        for key in ("images", "labels"):
            assert np.array_equal(one[key][present], other[key][present])
    assert sorted(i for batch in shown for i in batch["indices"] if i >= 0) == list(range(70))


def test_the_time_that_decoding_takes_is_told(monkeypatch):
    class Slow(Watched):
        def __getitems__(self, indices):
            end = time.thread_time() + 0.002 * len(indices)
            while time.thread_time() < end:
                pass
            return super().__getitems__(indices)

    # Created, asked for a chunk, got it, asked for the line: 8 s of the 10 s since the first chunk are a wait.
    times = iter([0.0, 100.0, 108.0, 110.0])
    clock = types.SimpleNamespace(monotonic=times.__next__, thread_time=time.thread_time)
    monkeypatch.setattr("mixer_jax.data.pipelines.time", clock)
    _, streaming = pipelines(TrainSampler(70, 8, seed=0), Slow())
    assert streaming.decoding() == ""
    streaming.chunk(0, 4)
    took, waited = re.fullmatch(
        r"decoding took ([\d.]+) ms of CPU time per image; training waited for images (\d+)% of the time",
        streaming.decoding(),
    ).groups()
    assert 2 <= float(took) < 20
    assert int(waited) == 80


def test_no_step_is_brought_without_reading():
    source = Watched()
    _, streaming = pipelines(TrainSampler(70, 8, seed=0), source, 2)
    source.read.clear()
    assert streaming.chunk(0, 0)["images"].shape == (2, 16, 4, 6 * 5 * 3)
    assert source.read == []


def test_each_process_reads_its_share_and_all_make_the_batch():
    sampler = TrainSampler(70, 16, seed=1)
    whole = sampler.batches(0, 4)["indices"]
    for process in range(2):
        source = Watched()
        _, streaming = pipelines(sampler, source, 2, process, 2)
        source.read.clear()
        for step, batch in enumerate(batches_of(streaming, 4)):
            assert np.array_equal(batch["indices"], whole[step][8 * process : 8 * process + 8])
            assert np.array_equal(batch["images"], IMAGES[batch["indices"]])
        own = sampler.batches(0, 100)["indices"][:, 8 * process : 8 * process + 8].ravel().tolist()
        # A chunk more than was asked for, by several threads, of which any may be the last to come to its turn.
        read = Counter(list(source.read))
        assert Counter(own[:32]) <= read <= Counter(own[: 32 + (streaming.max_steps + 12) * 8])


def test_images_are_read_by_several_threads_ahead_of_use():
    source = Watched()
    _, streaming = pipelines(TrainSampler(70, 48, seed=1), source)
    list(batches_of(streaming, 10))
    assert len(source.threads) > 2


class TestMistakes:
    def test_an_image_of_another_shape(self):
        class Odd(ArraySource):
            def __getitems__(self, indices):
                return [(image[:-1] if i == 9 else image, y) for i, (image, y) in
                        zip(indices, super().__getitems__(indices), strict=True)]  # fmt: skip

        split = stream(Odd(*MADE))
        split.read([8, 10])
        with pytest.raises(UserError, match="images differ in shape: .* is 6x5x3, .* is 5x5x3"):
            split.read([8, 9])

    def test_a_label_out_of_range_while_streaming(self):
        split = StreamedSplit(ArraySource("made", IMAGES, LABELS, ("a", "b")), (6, 5, 3))
        pipeline = StreamingPipeline(
            split, TrainSampler(70, 32, seed=0), ProcessShard(1), DataParallel(jax.devices()[:1]).sharding, 4
        )
        with pytest.raises(UserError, match=r"has label [23], outside 0\.\.1"):
            pipeline.chunk(0, 1)


@pytest.mark.parametrize(("numbers", "width"), [(3072, 3072), (784, 784), (150_528, 12_544), (32_770, 6_554)])
def test_rows_that_are_too_wide_are_gathered_in_equal_parts(numbers, width):
    assert gathered_width(numbers) == width
    assert numbers % width == 0
