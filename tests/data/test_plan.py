"""The order of the examples: every epoch a permutation, whatever the batch size, a pure function of (seed, step)."""

import numpy as np
import pytest

from mixer_jax.data import BatchPlan, evaluation_indices, split_over_devices
from mixer_jax.data.sources import shuffled


@pytest.mark.parametrize("batch_size", [1, 7, 10, 23])
def test_every_epoch_shows_every_example_once_in_a_new_order(batch_size):
    plan = BatchPlan(num_examples=10, batch_size=batch_size, seed=3)
    steps = plan.steps(7)
    stream = plan.indices(0, steps).ravel()[:70].reshape(7, 10)
    assert np.array_equal(np.sort(stream), np.tile(np.arange(10), (7, 1)))
    assert len(np.unique(stream, axis=0)) == 7
    assert steps == -(-70 // batch_size)


def test_a_batch_depends_on_seed_and_step_alone():
    plan = BatchPlan(100, 8, seed=1)
    whole = plan.indices(0, 40)
    assert whole.dtype == np.int32
    for step in (0, 5, 12, 13, 39):
        assert np.array_equal(BatchPlan(100, 8, seed=1).indices(step, 1)[0], whole[step])
    assert not np.array_equal(BatchPlan(100, 8, seed=2).indices(0, 40), whole)
    assert plan.indices(5, 0).shape == (0, 8)


def test_fractions_of_an_epoch():
    plan = BatchPlan(100, 8, seed=0)
    assert [plan.steps(e) for e in (0, 0.1, 0.5, 1, 1.5)] == [0, 2, 7, 13, 19]


def test_shuffles_are_the_same_for_ever():
    # Written down once; a change would silently change every run, split and comparison.
    assert shuffled(10, seed=0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert shuffled(10, seed=5, stream=2).tolist() == [3, 5, 9, 2, 7, 1, 8, 0, 6, 4]


@pytest.mark.parametrize("batch_size", [1, 7, 10, 64])
def test_evaluation_visits_each_example_once(batch_size):
    indices = evaluation_indices(10, batch_size)
    assert indices.shape[1] == batch_size
    assert np.array_equal(indices[indices >= 0], np.arange(10))
    assert (indices < 0).sum() < batch_size


def test_devices_get_consecutive_shares_in_order():
    batches = np.arange(24, dtype=np.int32).reshape(3, 8)
    shares = split_over_devices(batches, length=5, num_devices=4)
    assert shares.shape == (4, 5, 2)
    assert np.array_equal(shares[:, :3].swapaxes(0, 1).reshape(3, 8), batches)
    assert np.all(shares[:, 3:] == -1)
