"""A branch under vmap: the right result for any number of takers, computed for hardly more than them."""

import jax
import numpy as np
import pytest

from mixer_jax.augment.selection import PART, only_where


@pytest.mark.parametrize("takers", [0, 1, PART, PART + 1, 50])
def test_only_takers_are_changed_and_hardly_more_computed(takers):
    computed = []

    def count(x):
        computed.append(len(x))
        return x

    def change(x, factor):
        x = jax.pure_callback(count, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="broadcast_all")
        return factor * x + 1

    rng = np.random.default_rng(0)
    x, factor = rng.integers(0, 100, (50, 4)), rng.integers(0, 9, 50)
    taken = rng.permutation(50) < takers
    result = jax.jit(jax.vmap(lambda taken, x, factor: only_where(taken, change, x, factor)))(taken, x, factor)
    assert np.array_equal(result, np.where(taken[:, None], factor[:, None] * x + 1, x))
    assert sum(computed) == -(-takers // PART) * PART


def test_of_one_example_and_of_few():
    def change(x, other):
        return x + other

    assert only_where(True, change, np.arange(3), np.arange(3))[2] == 4
    assert only_where(False, change, np.arange(3), np.arange(3))[2] == 2
    # A batch smaller than what is computed at a time, and an argument that all share.
    result = jax.vmap(lambda taken, x: only_where(taken, change, x, np.arange(3)))(
        np.array([True, False]), np.ones((2, 3))
    )
    assert np.array_equal(result, [[1, 2, 3], [1, 1, 1]])
