"""The order of the examples: every epoch a permutation, whatever the batch size, a pure function of (seed, step)."""

import numpy as np
import pytest

from mixer_jax.data import EvalSampler, ProcessShard, TrainSampler
from mixer_jax.data.sources import shuffled


@pytest.mark.parametrize("batch_size", [1, 7, 10, 23])
def test_every_epoch_shows_every_example_once_in_a_new_order(batch_size):
    sampler = TrainSampler(num_examples=10, batch_size=batch_size, seed=3)
    steps = sampler.steps_in(7)
    batches = sampler.batches(0, steps)
    stream = batches["indices"].ravel()[:70].reshape(7, 10)
    assert np.array_equal(batches["epochs"].ravel()[:70], np.repeat(np.arange(7), 10))
    assert np.array_equal(np.sort(stream), np.tile(np.arange(10), (7, 1)))
    assert len(np.unique(stream, axis=0)) == 7
    assert steps == -(-70 // batch_size)


def test_a_batch_depends_on_seed_and_step_alone():
    sampler = TrainSampler(100, 8, seed=1)
    whole = sampler.batches(0, 40)
    for step in (0, 5, 12, 13, 39):
        alone = TrainSampler(100, 8, seed=1).batches(step, 1)
        for key, x in whole.items():
            assert x.dtype == np.int32
            assert np.array_equal(alone[key][0], x[step])
    assert not np.array_equal(TrainSampler(100, 8, seed=2).batches(0, 40)["indices"], whole["indices"])
    assert {x.shape for x in sampler.batches(5, 0).values()} == {(0, 8)}


def test_fractions_of_an_epoch():
    sampler = TrainSampler(100, 8, seed=0)
    assert [sampler.steps_in(e) for e in (0, 0.1, 0.5, 1, 1.5)] == [0, 2, 7, 13, 19]


def test_shuffles_are_the_same_for_ever():
    # Written down once; a change would silently change every run, split and comparison.
    assert shuffled(10, seed=0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert shuffled(10, seed=5, stream=2).tolist() == [3, 5, 9, 2, 7, 1, 8, 0, 6, 4]


@pytest.mark.parametrize("batch_size", [1, 7, 10, 64])
def test_evaluation_visits_each_example_once(batch_size):
    sampler = EvalSampler(10, batch_size)
    indices = sampler.batches(0, sampler.num_steps)["indices"]
    assert indices.shape[1] == batch_size
    assert np.array_equal(indices[indices >= 0], np.arange(10))
    assert (indices < 0).sum() < batch_size


def test_devices_get_consecutive_shares_in_order():
    batches = {"indices": np.arange(24, dtype=np.int32).reshape(3, 8)}
    shares = ProcessShard(num_devices=4).over_devices(batches, length=5)["indices"]
    assert shares.shape == (4, 5, 2)
    assert np.array_equal(shares[:, :3].swapaxes(0, 1).reshape(3, 8), batches["indices"])


def test_processes_get_consecutive_parts_that_make_up_the_batch():
    batches = {"indices": np.arange(24).reshape(3, 8), "epochs": np.zeros((3, 8))}
    parts = [ProcessShard(2, process, 4).of(batches) for process in range(4)]
    for key, x in batches.items():
        assert np.array_equal(np.concatenate([part[key] for part in parts], axis=1), x)
