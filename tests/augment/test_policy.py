"""The policy as a whole: what an example gets depends on (seed, step, position), whatever the devices."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mixer_jax.augment import Augment
from mixer_jax.data import ProcessShard
from mixer_jax.errors import UserError
from mixer_jax.training.parallel import AXIS, DataParallel, predecessors
from support import make_config

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 16, 20, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 16).astype(np.int32)
FULL = {
    "crop": "pad", "flip": "random", "automatic": "randaugment", "erasing__probability": 0.5,
    "mixing__mixup_alpha": 1.0, "mixing__cutmix_alpha": 1.0,
}  # fmt: skip
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def make_policy(image_shape=IMAGES.shape[1:], total_steps=None, **fields):
    config = make_config(**{f"augment__{key}": value for key, value in fields.items()})
    images = SimpleNamespace(image_shape=image_shape, mean=MEAN, std=STD)
    return Augment(config.augment, images, 10, total_steps)


def augmented(policy, num_devices=1, step=3, images=IMAGES, labels=LABELS, epochs=0, seed=0):
    """A global batch, augmented on so many devices."""
    n = len(images)
    batch = {"images": images, "labels": labels, "indices": np.arange(n), "epochs": np.full(n, epochs)}
    chunk = ProcessShard(num_devices).over_devices({key: x[None] for key, x in batch.items()}, 1)

    def train(chunk, step):
        share = {key: x[0] for key, x in chunk.items()}
        positions = jax.lax.axis_index(AXIS) * len(share["labels"]) + jnp.arange(len(share["labels"]))
        return policy.train(seed, step, share, positions, predecessors)

    compiled = jax.pmap(train, AXIS, in_axes=(0, None), devices=DataParallel(jax.devices()[:num_devices]).devices)
    images, targets = jax.device_get(compiled(chunk, step))
    return images.reshape(-1, *images.shape[2:]), targets.reshape(n, -1)


@pytest.mark.parametrize("crop", ["pad", "inception"])
@pytest.mark.parametrize("step", [0, 3])
def test_one_and_four_devices_give_the_same_batch(step, crop):
    policy = make_policy(**FULL | {"crop": crop, "automatic": "randaugment" if crop == "pad" else "none"})
    images, targets = augmented(policy, 1, step)
    assert not np.array_equal(images, policy.evaluate(IMAGES))
    others, other_targets = augmented(policy, 4, step)
    np.testing.assert_allclose(others, images, atol=1e-5)
    np.testing.assert_allclose(other_targets, targets, atol=1e-6)


@pytest.mark.parametrize(("step", "mixed"), [(0, True), (7, True), (8, False), (9, False)])
def test_batches_are_mixed_until_a_fraction_of_the_training_is_done(step, mixed):
    until = make_policy(**FULL | {"mixing__until": 0.8}, total_steps=10)
    always, never = make_policy(**FULL), make_policy(**FULL | {"mixing__probability": 0.0})
    images, targets = augmented(until, step=step)
    expected, expected_targets = augmented(always if mixed else never, step=step)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    np.testing.assert_allclose(targets, expected_targets, atol=1e-6)
    assert np.array_equal(targets, np.eye(10)[LABELS]) != mixed


def test_an_example_depends_on_seed_step_and_position_alone():
    alone = {key: value for key, value in FULL.items() if not key.startswith("mixing")}
    images, targets = augmented(make_policy(**alone))
    assert np.array_equal(targets, np.eye(10)[LABELS])
    others = RNG.integers(0, 256, IMAGES.shape, dtype=np.uint8)
    others[5] = IMAGES[5]
    assert np.array_equal(augmented(make_policy(**alone), images=others)[0][5], images[5])
    moved = np.roll(IMAGES, 1, axis=0)
    for changed in (
        augmented(make_policy(**alone), seed=1)[0][5],
        augmented(make_policy(**alone), step=4)[0][5],
        augmented(make_policy(**alone), images=moved)[0][6],
    ):
        assert not np.array_equal(changed, images[5])


@pytest.mark.parametrize(
    "alone",
    [
        {"crop": "pad"},
        {"crop": "inception"},
        {"flip": "random"},
        {"flip": "alternating"},
        {"automatic": "randaugment"},
        {"automatic": "autoaugment_cifar10"},
        {"erasing__probability": 1.0},
    ],
)
def test_each_change_is_made_without_the_others_too(alone):
    policy = make_policy(**alone)
    apart = np.abs(augmented(policy)[0] - policy.evaluate(IMAGES)).max((1, 2, 3))
    assert (apart > 1e-3).mean() > 0.2


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_the_partner_is_the_predecessor_in_the_global_batch(num_devices):
    policy = make_policy(mixing__mixup_alpha=1.0)
    images, targets = augmented(policy, num_devices)
    plain = np.asarray(policy.evaluate(IMAGES))
    weight = targets[1, LABELS[1]] if LABELS[1] != LABELS[0] else None
    assert weight is not None
    np.testing.assert_allclose(images, weight * plain + (1 - weight) * np.roll(plain, 1, axis=0), atol=1e-5)
    one_hot = np.eye(10)[LABELS]
    np.testing.assert_allclose(targets, weight * one_hot + (1 - weight) * np.roll(one_hot, 1, axis=0), atol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)


def test_the_random_flip_is_of_half_the_images():
    images, _ = augmented(make_policy(flip="random"), images=np.tile(IMAGES, (50, 1, 1, 1)), labels=np.zeros(800, int))
    mirrored = flips(images, np.tile(IMAGES, (50, 1, 1, 1)))
    assert stats.binomtest(int(mirrored.sum()), 800).pvalue > 0.001


def flips(images, originals):
    """Which of the normalised images are mirrored; each has to be, or to be as it was."""
    plain = (originals / 255 - MEAN) / STD
    same = np.isclose(images, plain, atol=1e-5).all((1, 2, 3))
    mirrored = np.isclose(images, plain[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    assert np.all(same ^ mirrored)
    return mirrored


def test_the_alternating_flip_shows_the_other_side_every_epoch():
    policy = make_policy(flip="alternating")
    shown = [flips(augmented(policy, step=7 + epoch, epochs=epoch)[0], IMAGES) for epoch in range(4)]
    assert 0 < shown[0].sum() < 16
    for earlier, later in itertools.pairwise(shown):
        assert np.array_equal(later, ~earlier)


def test_the_padding_is_the_configs():
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
    policy = make_policy(crop="pad", crop_padding=1)
    shifts = set()
    for step in range(4):
        for own, image in zip(padded, policy.denormalize(augmented(policy, step=step)[0]), strict=True):
            places = [(y, x) for y in range(3) for x in range(3) if np.array_equal(own[y : y + 16, x : x + 20], image)]
            assert len(places) == 1
            shifts.update(places)
    assert len(shifts) > 6


def test_the_box_of_an_inception_crop_is_the_configs():
    policy = make_policy(crop="inception", inception__area=(0.25, 0.25), inception__aspect=(1.0, 1.0))
    for own, image in zip(IMAGES[:4], policy.denormalize(augmented(policy)[0]), strict=False):
        boxes = (
            Image.fromarray(own[y : y + 9, x : x + 9]) for y in range(8) for x in range(12)
        )  # sqrt(320 / 4) pixels
        scaled = (np.asarray(box.resize((20, 16), Image.Resampling.BILINEAR), int) for box in boxes)
        assert min(np.abs(one - image).max() for one in scaled) <= 1


@pytest.mark.parametrize("fill", ["zero", "color", "noise"])
def test_what_is_erased_is_the_configs(fill):
    box = {"erasing__area": (0.25, 0.25), "erasing__aspect": (1.0, 1.0)}
    policy = make_policy(erasing__probability=1.0, erasing__fill=fill, **box)
    for own, image in zip(policy.evaluate(IMAGES), augmented(policy)[0], strict=True):
        erased = np.any(np.abs(image - own) > 1e-6, axis=-1)
        assert erased.sum() == 81
        kinds = len(np.unique(image[erased], axis=0))
        assert kinds == (81 if fill == "noise" else 1)
        assert np.any(image[erased]) == (fill != "zero")


@pytest.mark.parametrize(
    ("num_ops", "magnitude", "low", "high"),
    [(1, 0, 0.7, 0.87), (3, 0, 0.4, 0.58), (1, 30, 0.04, 0.2)],  # at magnitude 0, 11 of 14 operations do nothing
)
def test_the_number_and_the_magnitude_of_operations_are_the_configs(num_ops, magnitude, low, high):
    settings = {"rand_augment__num_ops": num_ops, "rand_augment__magnitude": magnitude}
    policy = make_policy(automatic="randaugment", **settings)
    images = np.tile(IMAGES, (25, 1, 1, 1))
    changed, _ = augmented(policy, images=images, labels=np.zeros(400, int))
    same = np.all(policy.denormalize(changed) == images, axis=(1, 2, 3))
    assert low < same.mean() < high


def test_nothing_is_done_by_default():
    images, targets = augmented(make_policy())
    np.testing.assert_allclose(images, (IMAGES / 255 - MEAN) / STD, atol=1e-5)
    assert np.array_equal(targets, np.eye(10)[LABELS])
    assert np.array_equal(make_policy().denormalize(images), IMAGES)


def test_evaluation_scales_the_central_box():
    large = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    policy = make_policy(image_shape=large.shape, input_size=(28, 28), eval_crop=0.875, crop="inception")
    assert policy.input_shape == (28, 28, 3)
    ours = np.asarray(policy.denormalize(policy.evaluate(large[None])))[0].astype(int)
    theirs = np.asarray(Image.fromarray(large[4:60, 4:60]).resize((28, 28), Image.Resampling.BILINEAR))
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": "pda"}, r"unknown config.augment.crop 'pda'.*did you mean 'pad'"),
        ({"flip": "alternate"}, r"unknown config.augment.flip 'alternate'.*did you mean 'alternating'"),
        ({"automatic": "rand_augment"}, r"unknown config.augment.automatic .*did you mean 'randaugment'"),
        ({"erasing__fill": "colour"}, r"unknown config.augment.erasing.fill .*did you mean 'color'"),
        ({"erasing__area": (0.5, 0.1)}, r"config.augment.erasing.area=\(0.5, 0.1\): must be LOW,HIGH"),
        ({"erasing__area": ("a", "b")}, "config.augment.erasing.area=.*: must be LOW,HIGH"),
        ({"inception__aspect": (1.0,)}, "config.augment.inception.aspect=.*: must be LOW,HIGH"),
        ({"erasing__probability": 1.5}, r"config.augment.erasing.probability=1.5: must be in \[0, 1\]"),
        ({"rand_augment__magnitude": 31}, "config.augment.rand_augment.magnitude=31: must be in 0..30"),
        ({"input_size": (1, 2, 3)}, "config.augment.input_size=.*: give HEIGHT,WIDTH"),
        ({"mixing__mixup_alpha": -1.0}, "config.augment.mixing.mixup_alpha=-1.0: must not be negative"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(UserError, match=message):
        make_policy(**fields)


def test_operations_want_one_or_three_channels():
    with pytest.raises(UserError, match="needs 1 or 3 channels, but the images have 2"):
        make_policy(image_shape=(8, 8, 2), automatic="randaugment")
