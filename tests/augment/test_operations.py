"""Every operation against torchvision's recorded output, and against Pillow at all magnitudes and odd sizes."""

import math

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mixer_jax.augment import OPERATIONS, Magnitudes, apply
from mixer_jax.augment.color import autocontrast_table, equalize_table
from mixer_jax.augment.operations import INDEX, SIGNED
from support import GOLDEN, programs_for

# Blends are computed in single precision by both, with other roundings in between.
BLENDS = {"Brightness", "Color", "Contrast", "Sharpness"}


@pytest.fixture(scope="module", autouse=True, params=["cpu", "tpu"])
def platform(request):
    """Everything here holds of what is compiled for a CPU or GPU, and for a TPU."""
    with programs_for(request.param):
        yield


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "randaugment_torchvision.npz")


@pytest.fixture(scope="module")
def on_golden(golden, platform):
    magnitudes = Magnitudes(32, 32)
    return jax.jit(jax.vmap(lambda *args: apply(*args, magnitudes), in_axes=(0, None, None, None)))


@pytest.mark.parametrize("name", OPERATIONS[:14])
def test_torchvision(name, golden, on_golden):
    """Exact, rotations included, but for blends: those may differ by one grey level, and hardly do."""
    cases = [key for key in golden if key.startswith(f"{name}/")]
    assert len(cases) == (6 if name in SIGNED else 3 if name in ("Posterize", "Solarize") else 1)
    for case in cases:
        _, bin_, sign = case.split("/")
        ours = np.asarray(on_golden(golden["images"], INDEX[name], int(bin_), sign == "-"))
        differences = np.abs(ours.astype(int) - golden[case])
        assert differences.max() <= (name in BLENDS), case
        assert (differences > 0).mean() < 0.01, case


def pillow(name: str, image: Image.Image, value: float) -> Image.Image:
    """What torchvision does to a PIL image, in Pillow's own words."""
    affine = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateX": (1, 0, -int(value), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -int(value)),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], Image.Resampling.NEAREST)
    if name in BLENDS:
        return getattr(ImageEnhance, name)(image).enhance(1 + value)
    return {
        "Identity": lambda: image,
        "Rotate": lambda: image.rotate(value),
        "Posterize": lambda: ImageOps.posterize(image, int(value)),
        "Solarize": lambda: ImageOps.solarize(image, value),
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageOps.invert(image),
    }[name]()


@pytest.mark.parametrize("num_bins", [31, 10], ids=["randaugment", "autoaugment"])
@pytest.mark.parametrize("shape", [(24, 37, 3), (28, 28, 1), (1, 9, 3)], ids=["colour", "grey", "line"])
def test_pillow_at_all_magnitudes(shape, num_bins):
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.linspace(20, 180, shape[0]), np.linspace(0, 60, shape[1]))[..., None]
    image = (smooth + rng.integers(0, 16, shape)).astype(np.uint8)
    pil = Image.fromarray(image if shape[-1] == 3 else image[..., 0])
    magnitudes = Magnitudes(*shape[:2], num_bins)
    compiled = jax.jit(lambda *args: apply(image, *args, magnitudes))
    for name in OPERATIONS:
        for bin_ in range(num_bins):
            for negative in (False, True) if name in SIGNED else (False,):
                value = magnitudes.value(name, bin_, -1 if negative else 1)
                ours = np.asarray(compiled(INDEX[name], bin_, negative)).astype(int)
                theirs = np.asarray(pillow(name, pil, value)).reshape(shape)
                assert np.abs(ours - theirs).max() <= (name in BLENDS), (name, bin_, negative)


def test_magnitudes_are_torchvisions():
    """The space of RandAugment in torchvision, from its documented formulas, at 31 bins and 32 pixels."""
    magnitudes = Magnitudes(32, 40)
    for bin_ in range(31):
        share = bin_ / 30
        expected = {
            "ShearX": 0.3 * share, "TranslateX": 150 / 331 * 40 * share, "TranslateY": 150 / 331 * 32 * share,
            "Rotate": 30 * share, "Brightness": 0.9 * share, "Solarize": 255 - 255 * share,
            "Posterize": 8 - round(bin_ / (30 / 4)),
        }  # fmt: skip
        for name, value in expected.items():
            assert magnitudes.value(name, bin_) == pytest.approx(value, rel=1e-6, abs=1e-9), (name, bin_)
    assert magnitudes.value("Rotate", 30, -1) == -30


def test_autocontrast_at_every_darkest_and_brightest_level():
    levels = np.arange(256, dtype=np.uint8)
    compiled = jax.jit(jax.vmap(autocontrast_table))
    for low in range(256):
        highs = np.arange(low, 256)
        counts = ((levels >= low) & (levels <= highs[:, None])).astype(np.int32)
        counts = np.pad(counts, ((0, 256 - len(highs)), (0, 0)))[:, None]  # one shape, compiled once
        tables = np.asarray(compiled(counts))[:, 0]
        for high, table in zip(highs, tables, strict=False):
            pil = ImageOps.autocontrast(Image.fromarray(levels[None, low : high + 1]))
            assert np.array_equal(table[low : high + 1], np.asarray(pil)[0]), (low, high)


def test_equalize_of_all_kinds_of_histograms():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, high, 400).astype(np.uint8) for high in (1, 2, 3, 10, 100, 256) for _ in range(20)]
    images += [np.minimum(rng.geometric(0.05, 400), 255).astype(np.uint8) for _ in range(40)]
    counts = np.stack([np.bincount(image, minlength=256) for image in images]).astype(np.int32)
    for image, table in zip(images, np.asarray(equalize_table(counts)), strict=True):
        pil = ImageOps.equalize(Image.fromarray(image[None]))
        assert np.array_equal(table[image], np.asarray(pil)[0])


def test_rotation_is_counterclockwise_about_the_centre():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 8] = 255  # on the right, in the middle
    turned = np.asarray(jax.jit(lambda x: apply(x, INDEX["Rotate"], 30, False, Magnitudes(9, 9)))(image))[..., 0]
    y, x = np.argwhere(turned)[0]
    assert math.degrees(math.atan2(4 - y, x - 4)) == pytest.approx(30, abs=8)
