"""A trained Mixer for images of another size, or grey instead of colour."""

import dataclasses

import jax
import numpy as np
import pytest

from made_models import made_classifier, some_images
from mixer_jax import models
from mixer_jax.errors import UserError
from mixer_jax.inference import Classifier, Preprocessing, at_image_size, load, with_channels
from mixer_jax.models.resolution import interpolated, tiled
from support import make_config


def test_a_patch_size_that_followed_from_the_image_size_stays():
    config = make_config(model__variant="Nano", model__num_blocks=1).model
    model = models.create(config, num_classes=2, image_shape=(32, 32, 1))
    params = model.init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))["params"]
    before = Classifier(config, params, Preprocessing((32, 32, 1), (0.5,), (0.5,)), ("a", "b"))
    after, _ = at_image_size(before, (64, 64), None)
    assert (before.model.patch_size, after.model.patch_size) == (4, 4)


@pytest.mark.parametrize(
    ("image_size", "tokens_mlp_dim", "grid", "line"),
    [
        ((16, 16), 24, (2, 2), "token mixing for 2x2 patches repeated in 2x2 tiles (paper, app. C) for 4x4"),
        ((16, 8), None, (2, 1), "token mixing for 2x2 patches repeated in 2x1 tiles (paper, app. C) for 4x2"),
        ((16, 16), 6, (4, 4), "token mixing for 2x2 patches interpolated (not from the paper) for 4x4"),
        ((12, 20), None, (3, 5), "token mixing for 2x2 patches interpolated (not from the paper) for 3x5"),
        ((8, 8), None, None, ""),
    ],
)
def test_another_image_size(image_size, tokens_mlp_dim, grid, line, tmp_path):
    before = made_classifier()
    after, said = at_image_size(before, image_size, tokens_mlp_dim)
    assert said == line
    assert after.image_shape == after.input_shape == (*image_size, 1)
    change = {"repeated": tiled, "interpolated": interpolated}
    made = next((change[word] for word in change if word in line), lambda params, *_: params)
    jax.tree.map(np.testing.assert_array_equal, after.params, made(before.params, (2, 2), grid))
    width = 6 * grid[0] * grid[1] if made is tiled else 6
    assert (after.config.tokens_mlp_dim, after.model.tokens_mlp_dim) == (width, width)
    assert before.config.tokens_mlp_dim == 6
    assert (after.label_names, after.preprocessing.mean) == (before.label_names, before.preprocessing.mean)
    # It computes, and is written and read like any other.
    images = some_images(after)
    after.save(tmp_path / "after.npz")
    np.testing.assert_array_equal(load(tmp_path / "after.npz").logits(images), after.logits(images))


def test_a_tiled_mixer_sees_in_every_tile_what_it_saw():
    before = made_classifier()
    after, _ = at_image_size(before, (16, 16))
    images = some_images(before)
    np.testing.assert_allclose(after.logits(np.tile(images, (1, 2, 2, 1))), before.logits(images), atol=1e-4)


def test_the_size_is_that_of_the_input_to_which_images_were_scaled():
    scaled = made_classifier((20, 20, 1), input_size=(8, 8))
    assert (scaled.image_shape, scaled.input_shape) == ((20, 20, 1), (8, 8, 1))
    after, said = at_image_size(scaled, (8, 8))
    assert said == ""
    assert after.image_shape == after.input_shape == (8, 8, 1)
    jax.tree.map(np.testing.assert_array_equal, after.params, scaled.params)


def test_a_width_that_is_neither_is_refused():
    for image_size, line in (
        ((16, 16), r"tokens_mlp_dim=9: use 24 \(tiled, .*\) or 6 \(interpolated\) to go from 2x2 to 4x4 patches"),
        ((12, 12), r"tokens_mlp_dim=9: use 6 \(interpolated\) to go from 2x2 to 3x3 patches"),
    ):
        with pytest.raises(UserError, match=line):
            at_image_size(made_classifier(), image_size, 9)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_grey_and_colour(before, after):
    of_before = made_classifier((8, 8, before))
    of_after, said = with_channels(of_before, after)
    assert said.startswith(f"{before} channels become {after}: the stem's kernel is")
    assert of_after.image_shape == (8, 8, after)
    both = ((of_before, before), (of_after, after))
    grey = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    logits = [of.model.apply({"params": of.params}, np.repeat(grey, channels, 3)) for of, channels in both]
    np.testing.assert_allclose(*logits, atol=1e-5)
    pixels = some_images(made_classifier())
    np.testing.assert_allclose(*(of.logits(np.repeat(pixels, channels, 3)) for of, channels in both), atol=1e-4)


def test_the_normalisation_of_colours_becomes_their_mean():
    colour = made_classifier((8, 8, 3))
    different = dataclasses.replace(colour.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.2, 0.4, 0.3))
    grey, _ = with_channels(dataclasses.replace(colour, preprocessing=different), 1)
    np.testing.assert_allclose((*grey.preprocessing.mean, *grey.preprocessing.std), (0.2, 0.3))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 3), (2, 3)])
def test_other_channels_stay(before, after):
    of_before = made_classifier((8, 8, before))
    assert with_channels(of_before, after) == (of_before, "")
