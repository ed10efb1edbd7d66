"""The bits that dropout draws are as random as they have to be, and dropped entries what they should be."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mixer_jax.models.layers import ExampleDropout, random_bits

PLACES, EXAMPLES, CHANNELS = 16, 64, 32


@pytest.fixture(scope="module")
def bits():
    words = jax.random.bits(jax.random.key(0), (EXAMPLES, 2))
    return np.asarray(random_bits(words, (PLACES, CHANNELS)))


def reference(words, shape):
    """The hash in Python's own integers."""
    places, channels = shape
    out = np.zeros((places, len(words), channels), np.uint32)

    def mixed(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        return x ^ (x >> 16)

    for place, example, channel in np.ndindex(out.shape):
        first, second = map(int, words[example])
        out[place, example, channel] = mixed(mixed((place * channels + channel) ^ first) ^ second)
    return out


def test_they_are_the_hash_of_the_words_and_the_place():
    words = np.random.default_rng(0).integers(0, 2**32, (3, 2), dtype=np.uint32)
    np.testing.assert_array_equal(random_bits(jnp.asarray(words), (4, 5)), reference(words, (4, 5)))


def test_both_ways_to_compute_them_are_the_same(monkeypatch):
    words = jax.random.bits(jax.random.key(1), (5, 2))
    looped = random_bits(words, (3, 7))
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda x, cpu, default: default(x))
    np.testing.assert_array_equal(random_bits(words, (3, 7)), looped)


def test_they_are_uniform(bits):
    assert stats.kstest(bits.ravel() / 2**32, "uniform").pvalue > 0.001
    for axis in range(3):
        means = np.moveaxis(bits, axis, 0).reshape(bits.shape[axis], -1).mean(1) / 2**32
        z = (means - 0.5) * np.sqrt(12 * bits.size / bits.shape[axis])
        assert stats.kstest(z, "norm").pvalue > 0.001


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_have_nothing_to_do_with_each_other(bits, axis):
    x = np.moveaxis(bits / 2**32, axis, 0)
    for lag in (1, 2, 7):
        one, other = x[:-lag].ravel(), x[lag:].ravel()
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(one.size)
        for rate in (0.1, 0.5):
            both = np.mean((one < rate) & (other < rate))
            assert abs(both - rate**2) < 4 * np.sqrt(rate**2 * (1 - rate**2) / one.size)


def test_another_layer_step_or_position_draws_anew():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, positions):
            return ExampleDropout(0.5)(x, positions), ExampleDropout(0.5)(x, positions)

    x, masks = jnp.ones((8, 16, 32)), []
    for key, start in ((0, 0), (0, 16), (1, 0)):
        both = Two().apply({}, x, jnp.arange(start, start + 16), rngs={"dropout": jax.random.key(key)})
        masks += [np.asarray(mask).ravel() > 0 for mask in both]
    same = np.mean(np.array(masks)[:, None] == np.array(masks)[None], axis=2)
    assert np.all(np.abs(same[~np.eye(6, dtype=bool)] - 0.5) < 4 * 0.5 / np.sqrt(x.size))
