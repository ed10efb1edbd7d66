"""Mixup and CutMix: weights, boxes, and labels that go with the pixels."""

import jax
import numpy as np
import pytest
from scipy import stats

from mixer_jax.augment.mixing import Mixing
from support import draws, same_distribution

N = 3000


def test_mixup_weights_are_beta_distributed():
    weight, (_, _, height, _) = draws(lambda key: Mixing(mixup_alpha=0.2).draw(key, 32, 32), N)
    assert stats.kstest(weight, stats.beta(0.2, 0.2).cdf).pvalue > 0.001
    assert not height.any()


def reference_cut(rng, height, width, alpha):
    """The rule of torchvision's CutMix, in NumPy."""
    half = 0.5 * np.sqrt(1 - rng.beta(alpha, alpha))
    x, y = rng.integers(width), rng.integers(height)
    half_width, half_height = int(half * width), int(half * height)
    x1, y1, x2, y2 = max(x - half_width, 0), max(y - half_height, 0), x + half_width, y + half_height
    return y1, x1, min(y2, height) - y1, min(x2, width) - x1


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmix_boxes_fall_as_torchvisions(alpha):
    weight, box = draws(lambda key: Mixing(cutmix_alpha=alpha).draw(key, 32, 48), N)
    rng = np.random.default_rng(0)
    theirs = np.array([reference_cut(rng, 32, 48, alpha) for _ in range(N)])
    for side, reference in zip(box, theirs.T, strict=True):
        assert same_distribution(side, reference)
    assert same_distribution(box[2] * box[3], theirs[:, 2] * theirs[:, 3])
    assert np.all(weight == 1)


def test_of_both_a_batch_gets_one_or_the_other_or_none():
    weight, box = draws(lambda key: Mixing(1.0, 1.0, probability=0.8).draw(key, 64, 64), N)
    mixed, cut = weight < 1, box[2] * box[3] > 0
    assert not np.any(mixed & cut)
    assert stats.binomtest(int(mixed.sum()), N, 0.4).pvalue > 0.001
    empty = np.mean([reference_cut(np.random.default_rng(i), 64, 64, 1.0)[2] == 0 for i in range(N)])
    assert stats.binomtest(int(cut.sum()), N, 0.4 * (1 - empty)).pvalue > 0.001


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (1.0, 1.0)], ids=["mixup", "cutmix", "both"])
def test_labels_go_with_the_pixels_and_keep_their_mass(alphas):
    mixing = Mixing(*alphas)
    # Black images of class 0 mixed with white ones of class 1: white's share of pixels is its share of the label.
    black, white = np.zeros((4, 16, 24, 3), np.float32), np.ones((4, 16, 24, 3), np.float32)
    zero, one = np.eye(10, dtype=np.float32)[np.zeros(4, int)], np.eye(10, dtype=np.float32)[np.ones(4, int)]
    compiled = jax.jit(mixing.__call__)
    shares = []
    for key in jax.random.split(jax.random.key(0), 40):
        images, targets = jax.device_get(compiled(key, black, zero, white, one))
        np.testing.assert_allclose(targets.sum(1), 1.0, atol=1e-6)
        np.testing.assert_allclose(images.mean((1, 2, 3), np.float64), targets[:, 1], atol=1e-6)
        np.testing.assert_allclose(targets[:, 0], 1 - targets[:, 1], atol=1e-6)
        shares.append(float(targets[0, 1]))
    assert np.std(shares) > 0.1
