"""What the pipelines hold: the whole set once a device, or a few batches and never more."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mixer_jax import data
from mixer_jax.data import Dataset
from mixer_jax.errors import UserError
from mixer_jax.training import Trainer, setup
from support import make_config, make_dataset, stream


def test_the_resident_pipeline_holds_the_set_once_on_each_device():
    dataset = make_dataset(num_train=77, num_val=78, num_test=79)  # sizes that no other test has
    trainer = Trainer(make_config(batch_size=16), dataset, jax.devices())
    state = trainer.init()
    for step in range(0, 20, 5):
        state, _ = trainer.train(state, step, 5)
    for _ in range(2):
        trainer.evaluate(state.params, dataset.val)
        trainer.evaluate(state.params, dataset.test)
    jax.block_until_ready(state)
    for split in (dataset.train, dataset.val, dataset.test):
        rows = len(split), split.images[0].size
        held = [x for x in jax.live_arrays() if x.shape == rows and x.dtype == np.uint8]
        shards = [shard for x in held for shard in x.addressable_shards]
        assert all(shard.data.nbytes == split.images.nbytes for shard in shards)
        # Older releases list views of an array beside it: what counts is the memory, one piece for each device.
        memory = {(shard.device, shard.data.unsafe_buffer_pointer()) for shard in shards}
        assert sorted(device.id for device, _ in memory) == [device.id for device in jax.devices()]


class Made:
    """Images that exist only while they are read."""

    label_names = ("a", "b")
    shape = (128, 128, 3)

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitems__(self, indices):
        return [(np.random.default_rng(i).integers(0, 256, self.shape, dtype=np.uint8), i % 2) for i in indices]

    def describe(self, index):
        return f"image {index}"

    def identity(self):
        yield b"made"


def peak_mebibytes():
    """The most memory this process has had since the last call; Linux only."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")
def test_memory_of_the_streaming_pipeline_stays_flat_over_three_epochs():
    train, few = stream(Made(4000)), stream(Made(8))  # 188 MiB of images
    dataset = Dataset("made", Made.label_names, train, few, few, (0.5,) * 3, (0.25,) * 3)
    config = make_config(batch_size=40, model__patch_size=32, model__num_blocks=1, augment__crop="pad")
    trainer = Trainer(config, dataset, jax.devices()[:1])
    state = trainer.init()
    peaks = []
    for step in range(300):  # three epochs
        if step % 100 == 10:  # the first steps fill the pipeline
            peak_mebibytes()
        state, metrics = trainer.train(state, step, 1)
        np.asarray(metrics["loss"])
        if step % 100 == 99:
            peaks.append(peak_mebibytes())
    # The heap of many threads breathes, most where other tests left it large; to keep the images would take 376 MiB.
    assert max(peaks) - min(peaks) < 120


@pytest.mark.parametrize(("gib", "streams"), [(1.0, False), (0.0, True), (1e-5, True), (None, False)])
def test_a_set_over_the_budget_is_streamed(gib, streams, write_folder):
    folder = str(write_folder(sizes=[(40, 40)]))  # 32 images: 150 kB
    config = make_config(dataset__name="folder", dataset__data_dir=folder, dataset__memory_budget_gib=gib)
    dataset = data.load(config.dataset)
    assert dataset.streamed == streams
    if streams:
        whole = data.load(make_config(dataset__name="folder", dataset__data_dir=folder).dataset)
        for name in ("train", "val", "test"):
            images, labels = getattr(dataset, name).read(range(len(getattr(dataset, name))))
            assert np.array_equal(images, getattr(whole, name).images)
            assert np.array_equal(labels, getattr(whole, name).labels)
        assert (dataset.mean, dataset.std) == (whole.mean, whole.std)


def test_the_budget_is_a_quarter_of_the_memory_for_all_cpu_devices(monkeypatch):
    from mixer_jax.data import memory

    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    assert memory.budget(None) == 1000 * 4096 / 4 / len(jax.devices())
    assert memory.budget(0.5) == 2**29


def test_the_states_of_all_seeds_have_to_fit_into_the_memory(monkeypatch):
    shapes = Trainer(make_config(), make_dataset()).state_shapes
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    monkeypatch.setattr(setup, "device_memory", lambda device: 1.5 * size)
    Trainer(make_config(), make_dataset())
    with pytest.raises(UserError, match="do not fit into"):
        Trainer(make_config(num_seeds=2), make_dataset())


def test_an_accelerator_holds_the_states_of_several_seeds_three_times(monkeypatch):
    shapes, accelerator = Trainer(make_config(), make_dataset()).state_shapes, SimpleNamespace(platform="gpu")
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    for num_seeds, copies in ((1, 1), (2, 6)):
        monkeypatch.setattr(setup, "device_memory", lambda device, copies=copies: copies * size)
        setup.require_memory(shapes, 1, num_seeds, accelerator)
        monkeypatch.setattr(setup, "device_memory", lambda device, copies=copies: copies * size - 1)
        with pytest.raises(UserError, match="do not fit into"):
            setup.require_memory(shapes, 1, num_seeds, accelerator)
