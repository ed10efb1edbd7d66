"""A policy as torchvision's transforms does what ours does."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from support import make_config

torchvision = pytest.importorskip("torchvision")
pytestmark = pytest.mark.torch

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
N = 600


def transformed(n=N, size=(16, 20), box=(0, 0, 16, 20), **fields):
    """The transform, and what it makes of the image: (n, *size, 3) normalised pixels."""
    import torch

    from mixer_jax.interop.torchvision_policy import example_transform

    torch.manual_seed(0)
    config = make_config(**{f"augment__{key}": value for key, value in fields.items()}).augment
    transform = example_transform(config, box=box, size=size, mean=MEAN, std=STD)
    image = Image.fromarray(PIXELS)
    return transform, np.stack([transform(image).numpy().transpose(1, 2, 0) for _ in range(n)])


def normalized(pixels):
    return (np.asarray(pixels) / 255 - MEAN) / STD


def test_without_augmentation_the_box_is_scaled_and_normalised():
    _, [image] = transformed(1, size=(8, 8), box=(2, 4, 12, 12))
    expected = Image.fromarray(PIXELS).resize((8, 8), Image.Resampling.BILINEAR, (4, 2, 16, 14))
    np.testing.assert_allclose(image, normalized(expected), atol=1e-5)


@pytest.mark.parametrize("kind", ["random", "alternating"])
def test_half_of_the_images_are_flipped(kind):
    _, images = transformed(flip=kind)
    flipped = np.isclose(images, normalized(PIXELS[:, ::-1]), atol=1e-5).all((1, 2, 3))
    same = np.isclose(images, normalized(PIXELS), atol=1e-5).all((1, 2, 3))
    assert np.all(flipped ^ same)
    assert stats.binomtest(int(flipped.sum()), N).pvalue > 0.001


def test_crops_are_shifts_by_the_padding():
    _, images = transformed(crop="pad", crop_padding=1)
    padded = np.pad(PIXELS, ((1, 1), (1, 1), (0, 0)))
    shifts = [normalized(padded[y : y + 16, x : x + 20]) for y in range(3) for x in range(3)]
    counts = [np.isclose(images, shift, atol=1e-5).all((1, 2, 3)).sum() for shift in shifts]
    assert sum(counts) == N
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("fill", ["zero", "noise"])
def test_boxes_are_erased_with_the_probability_and_of_the_area(fill):
    box = {"erasing__area": (0.25, 0.25), "erasing__aspect": (1.0, 1.0)}
    _, images = transformed(erasing__probability=0.3, erasing__fill=fill, **box)
    erased = np.any(np.abs(images - normalized(PIXELS)) > 1e-5, axis=-1)
    sizes = erased.sum((1, 2))
    assert set(sizes.tolist()) == {0, 81}
    assert stats.binomtest(int((sizes > 0).sum()), N, 0.3).pvalue > 0.001
    assert np.any(images[erased]) == (fill == "noise")


def test_the_automatic_policies_are_torchvisions():
    transform, _ = transformed(1, automatic="randaugment", rand_augment__num_ops=3, rand_augment__magnitude=7)
    [policy] = (x for x in transform.transforms if isinstance(x, torchvision.transforms.RandAugment))
    assert (policy.num_ops, policy.magnitude) == (3, 7)
    transform, _ = transformed(1, automatic="autoaugment_cifar10")
    assert any(isinstance(x, torchvision.transforms.AutoAugment) for x in transform.transforms)


def test_batches_are_mixed_with_the_probability():
    import torch

    from mixer_jax.interop.torchvision_policy import Collate

    torch.manual_seed(0)
    config = make_config(augment__mixing__mixup_alpha=1.0, augment__mixing__probability=0.3).augment.mixing
    examples = [(torch.full((3, 4, 4), float(label)), label) for label in range(8)]
    batches = [Collate(config, 8)(examples) for _ in range(300)]
    mixed = [targets.ndim == 2 for _, targets in batches]
    assert stats.binomtest(sum(mixed), 300, 0.3).pvalue > 0.001
    for images, targets in batches:
        if targets.ndim == 2:  # the mean of the classes, of which every pixel is made
            np.testing.assert_allclose(images[:, 0, 0, 0], targets @ torch.arange(8.0), atol=1e-5)
