"""What RandAugment and AutoAugment draw, against the rules of torchvision."""

import collections

import jax
import numpy as np
import pytest
from scipy import stats

from mixer_jax.augment.automatic import CIFAR10_POLICY, AutoAugment, RandAugment
from mixer_jax.augment.operations import INDEX, OPERATIONS, Magnitudes, apply, apply_all
from support import draws

N = 14_000


def test_randaugment_draws_operations_and_signs_evenly():
    operations, bins, negative = draws(RandAugment(num_ops=2, magnitude=9).draw, N)
    assert operations.shape == (N, 2)
    pairs = np.bincount(operations[:, 0] * 14 + operations[:, 1], minlength=14 * 14)
    assert len(pairs) == 14 * 14  # none is Invert
    assert stats.chisquare(pairs).pvalue > 0.001  # with replacement: all pairs alike
    assert stats.chisquare(np.bincount(negative[:, 0] * 2 + negative[:, 1])).pvalue > 0.001
    assert stats.chi2_contingency(np.histogram2d(operations[:, 0], negative[:, 0], (14, 2))[0]).pvalue > 0.001
    assert set(bins.ravel()) == {9}


def test_autoaugment_draws_pairs_evenly_and_operations_with_their_probability():
    operations, bins, negative = draws(AutoAugment().draw, N)
    expected, counted = collections.Counter(), collections.Counter()
    for pair in CIFAR10_POLICY:
        for place, (name, probability, bin_) in enumerate(pair):
            expected[place, name, bin_] += N / 25 * probability
    for place in range(2):
        for operation, bin_ in zip(operations[:, place], bins[:, place], strict=True):
            if operation != INDEX["Identity"]:
                counted[place, OPERATIONS[operation], int(bin_)] += 1
    expected = {key: value for key, value in expected.items() if value}
    assert counted.keys() == expected.keys()
    for key, value in expected.items():
        assert stats.binomtest(counted[key], N, value / N).pvalue > 1e-4, key
    assert stats.binomtest(int(negative.sum()), 2 * N).pvalue > 0.001


def test_the_policy_is_torchvisions():
    transforms = pytest.importorskip("torchvision.transforms", reason="needs torchvision")
    theirs = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10).policies
    without = [tuple((name, p, bin_ or 0) for name, p, bin_ in pair) for pair in theirs]
    assert without == list(CIFAR10_POLICY)


@pytest.mark.parametrize("policy", [RandAugment(3, 20), AutoAugment()], ids=["randaugment", "autoaugment"])
def test_operations_are_applied_one_after_the_other(policy):
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    magnitudes = Magnitudes(12, 12, policy.num_bins)
    one, several, draw = (
        jax.jit(lambda *args: apply(*args, magnitudes)),
        jax.jit(lambda key: apply_all(image[None], jax.vmap(policy.draw)(key[None]), magnitudes)[0]),
        jax.jit(policy.draw),
    )
    for key in jax.random.split(jax.random.key(1), 50):
        expected = image
        for operation, bin_, negative in zip(*draw(key), strict=True):
            expected = one(expected, operation, bin_, negative)
        # A blend may round otherwise in another program, by one grey level, which a later operation may enlarge.
        assert (several(key) != expected).mean() < 0.02
