"""Random Erasing against the rule of torchvision and timm."""

import jax
import numpy as np
import pytest
from scipy import stats

from mixer_jax.augment.erasing import RandomErasing
from support import draws, same_distribution

N = 4000


def reference_box(rng, height, width, area, aspect):
    """The rule of torchvision's and timm's RandomErasing, in NumPy: height and width, or nothing."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        ratio = np.exp(rng.uniform(*np.log(aspect)))
        h, w = round(np.sqrt(target * ratio)), round(np.sqrt(target / ratio))
        if h < height and w < width:
            return h, w
    return 0, 0


@pytest.mark.parametrize(
    ("shape", "area", "aspect"),
    [
        ((32, 32), (0.02, 0.33), (0.3, 3.3)),  # torchvision
        ((32, 32), (0.02, 1 / 3), (0.3, 1 / 0.3)),  # timm
        ((28, 40), (0.5, 1.0), (0.1, 10.0)),  # where most draws do not fit
        ((32, 32), (0.02, 0.2), (0.4, 0.8)),  # wider than high
    ],
)
def test_boxes_fall_as_torchvisions(shape, area, aspect):
    erasing = RandomErasing(probability=1.0, area=area, aspect=aspect)
    top, left, height, width = draws(lambda key: erasing.draw(key, *shape), N)
    rng = np.random.default_rng(0)
    theirs = np.array([reference_box(rng, *shape, area, aspect) for _ in range(N)])
    for ours, reference in ((height, theirs[:, 0]), (width, theirs[:, 1]), (height * width, theirs.prod(1))):
        assert same_distribution(ours, reference)
    # Where a box lies is uniform over where it fits.
    for place, free in ((top, shape[0] - height), (left, shape[1] - width)):
        assert np.all((place >= 0) & (place <= free))
        spread = (place + np.random.default_rng(1).uniform(size=N)) / (free + 1)
        assert stats.kstest(spread, "uniform").pvalue > 0.001


def test_probability_is_of_images():
    _, _, height, _ = draws(lambda key: RandomErasing(probability=0.25).draw(key, 32, 32), N)
    assert stats.binomtest(int((height > 0).sum()), N, 0.25).pvalue > 0.001


@pytest.mark.parametrize("fill", ["zero", "color", "noise"])
def test_only_the_box_is_overwritten(fill):
    erasing = RandomErasing(probability=1.0, fill=fill)
    image = np.full((16, 20, 3), 7, np.float32)
    erased_values = []
    for key in jax.random.split(jax.random.key(0), 50):
        top, left, height, width = erasing.draw(jax.random.split(key)[0], 16, 20)
        result = np.array(erasing(key, image))
        box = result[top : top + height, left : left + width]
        if fill == "zero":
            assert np.all(box == 0)
        if fill == "color":
            assert np.all(box == box[:1, :1])
        erased_values.append(box.reshape(-1, 3)[: 1 if fill == "color" else None])
        result[top : top + height, left : left + width] = 7
        assert np.array_equal(result, image)
    values = np.concatenate(erased_values).ravel()
    if fill != "zero":
        assert stats.kstest(values, "norm").pvalue > 0.001
