"""Crops, flips and resizing against NumPy and Pillow, and where random ones fall."""

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mixer_jax.augment.geometry import central_box, crop_box, flip, pad_and_crop, resized_crop
from support import draws, programs_for, same_distribution

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_pad_and_crop_is_a_shift_and_all_shifts_are_equally_likely(platform):
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)))
    crops = {padded[y : y + 9, x : x + 12].tobytes(): (y, x) for y in range(5) for x in range(5)}
    with programs_for(platform):
        drawn = draws(lambda key: pad_and_crop(key, IMAGE, 2), 5000)
    places = [crops[crop.tobytes()] for crop in drawn]
    counts = [places.count(place) for place in crops.values()]
    assert stats.chisquare(counts).pvalue > 0.001


def test_flip():
    assert np.array_equal(flip(IMAGE, True), IMAGE[:, ::-1])
    assert np.array_equal(flip(IMAGE, False), IMAGE)


@pytest.mark.parametrize("size", [(32, 32), (20, 50), (90, 7), (120, 120)])
@pytest.mark.parametrize("box", [(0, 0, 61, 83), (10, 5, 40, 64), (30, 41, 7, 3)])
def test_resized_crop_is_pillows_bilinear(size, box):
    image = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    top, left, height, width = box
    # Pillow looks at pixels outside a box, torchvision crops first.
    cropped = Image.fromarray(image[top : top + height, left : left + width])
    theirs = np.asarray(cropped.resize(size[::-1], Image.Resampling.BILINEAR), np.float32)
    ours = np.asarray(jax.jit(resized_crop, static_argnums=2)(image, box, size))
    assert np.abs(ours - theirs).max() <= 1.01  # Pillow rounds after each of its two passes


def reference_crop(rng, height, width, area, aspect):
    """The rule of torchvision's RandomResizedCrop, in NumPy."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        ratio = np.exp(rng.uniform(*np.log(aspect)))
        w, h = round(np.sqrt(target * ratio)), round(np.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    ratio = width / height
    if ratio < aspect[0]:
        w, h = width, round(width / aspect[0])
    elif ratio > aspect[1]:
        h, w = height, round(height * aspect[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("height", "width", "area", "aspect"),
    [
        (64, 64, (0.08, 1.0), (3 / 4, 4 / 3)),
        (40, 100, (0.5, 1.0), (3 / 4, 4 / 3)),
        (100, 40, (0.9, 1.0), (3 / 4, 4 / 3)),
        (64, 64, (0.08, 0.5), (0.4, 0.8)),  # higher than wide
    ],
)
def test_inception_crop_falls_as_torchvisions(height, width, area, aspect):
    ours = np.stack(draws(lambda key: crop_box(key, height, width, area, aspect), 4000), -1)
    rng = np.random.default_rng(0)
    theirs = np.array([reference_crop(rng, height, width, area, aspect) for _ in range(4000)])
    top, left, h, w = ours.T
    assert min(top.min(), left.min()) >= 0
    assert max((top + h - height).max(), (left + w - width).max()) <= 0
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column]), column
    assert same_distribution(h * w, theirs[:, 2] * theirs[:, 3])


@pytest.mark.parametrize(("aspect", "box"), [((100.0, 200.0), (3, 0, 1, 8)), ((0.005, 0.01), (0, 3, 8, 1))])
def test_an_inception_crop_of_an_extreme_aspect_has_a_pixel(aspect, box):
    assert tuple(map(int, crop_box(jax.random.key(0), 8, 8, (0.08, 1.0), aspect))) == box


def test_central_box():
    assert central_box(256, 256, (224, 224), 0.875) == (16, 16, 224, 224)
    assert central_box(100, 60, (32, 32), 1.0) == (20, 0, 60, 60)
    assert central_box(32, 32, (32, 32), 1.0) == (0, 0, 32, 32)
    assert central_box(32, 32, (32, 32), 0.01) == (15, 15, 1, 1)
    assert central_box(4, 100, (100, 4), 1.0) == (0, 49, 4, 1)
