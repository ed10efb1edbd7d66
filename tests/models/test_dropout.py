"""The bits that dropout draws are as random as they have to be, and dropped entries what they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mixer_jax.models import MlpMixer
from mixer_jax.models.layers import draw_words, dropout, entry_factors, mask
from mixer_jax.models.mixer import GELUS
from support import programs_for

PLACES, EXAMPLES, CHANNELS = 16, 64, 32


@pytest.fixture(scope="module")
def bits():
    (words,) = draw_words(jax.random.key(0), jnp.arange(EXAMPLES), 1)
    return np.asarray(entry_factors((PLACES, 1, CHANNELS)) * words[None, :, None])


def reference(word, entry):
    """The product of a word and the factor of an entry in Python's own integers."""
    x = entry + 1
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return ((x ^ (x >> 16)) | 1) * word & 0xFFFFFFFF


def test_they_are_the_product_of_a_word_and_the_factor_of_an_entry(bits):
    (words,) = draw_words(jax.random.key(0), jnp.arange(EXAMPLES), 1)
    for place, example, channel in ((0, 0, 0), (0, 1, 2), (3, 5, 31), (15, 63, 31)):
        assert bits[place, example, channel] == reference(int(words[example]), CHANNELS * place + channel)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_an_entry_is_kept_if_its_bits_say_so_on_every_platform(platform, stored):
    words = jax.random.bits(jax.random.key(1), (5,))
    with programs_for(platform):
        kept = np.asarray(mask(words, (3, 7), 0.4, stored))
    for place, example, channel in np.ndindex(kept.shape):
        assert kept[place, example, channel] == (reference(int(words[example]), 7 * place + channel) >= 0.4 * 2**32)


def test_each_example_and_each_entry_is_dropped_at_the_rate():
    rate, (words,) = 0.1, draw_words(jax.random.key(3), jnp.arange(512), 1)
    kept = np.asarray(mask(words, (64, 128), rate))
    for axis in ((1,), (0, 2)):  # of an entry over the examples, and of an example over the entries
        dropped = np.sum(~kept, axis=axis).ravel()
        n = kept.size // dropped.size
        z = (dropped - n * rate) / np.sqrt(n * rate * (1 - rate))
        assert abs(np.mean(z)) < 4 / np.sqrt(z.size)
        assert np.std(z) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("function", [*GELUS.values(), lambda x: x], ids=[*GELUS, "identity"])
def test_the_result_is_as_if_entries_were_dropped_after_the_function(function):
    x, words = jax.random.normal(jax.random.key(4), (3, 5, 7)), jax.random.bits(jax.random.key(5), (5,))
    keep = np.asarray(mask(words, (3, 7), 0.4))
    value, pull = jax.vjp(lambda x: dropout(x, words, 0.4, function), x)
    np.testing.assert_allclose(value, np.where(keep, function(x) / 0.6, 0), rtol=1e-6)
    (gradient,) = pull(jnp.ones_like(x))
    (expected,) = jax.vjp(function, x)[1](jnp.ones_like(x))
    np.testing.assert_allclose(gradient, np.where(keep, expected / 0.6, 0), rtol=1e-5, atol=1e-6)


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
    x, masks = jnp.ones((8, 16, 32)), []
    for key, start in ((0, 0), (0, 16), (1, 0)):
        for words in draw_words(jax.random.key(key), jnp.arange(start, start + 16), 2):
            masks.append(np.asarray(dropout(x, words, 0.5)).ravel() > 0)
    same = np.mean(np.array(masks)[:, None] == np.array(masks)[None], axis=2)
    assert np.all(np.abs(same[~np.eye(6, dtype=bool)] - 0.5) < 4 * 0.5 / np.sqrt(x.size))


def test_no_two_layers_of_a_model_use_the_same_words(monkeypatch):
    used = []
    monkeypatch.setattr("mixer_jax.models.mixer.dropout", lambda x, words, *_, **__: used.append(words) or x)
    monkeypatch.setattr("mixer_jax.models.mixer.depth_scale", lambda words, rate, dtype: used.append(words))
    model = MlpMixer(10, 3, 4, 8, 8, 8, dropout_rate=0.1, stochastic_depth_rate=0.1)
    images = jnp.ones((5, 8, 8, 3))
    model.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, images, train=True)
    assert len(used) == 3 * 6
    assert len(np.unique(np.array(used))) == 3 * 6 * 5
