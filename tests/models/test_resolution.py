"""A larger Mixer made of a smaller one computes, tile by tile, what the smaller one does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mixer_jax.models import MlpMixer
from mixer_jax.models.resolution import interpolated, tiled

SIZES = {"num_classes": 5, "num_blocks": 3, "patch_size": 4, "hidden_dim": 8, "channels_mlp_dim": 12}


def mixer(image_size, channels=3, **fields):
    """A small Mixer with parameters that all matter."""
    model = MlpMixer(**{"tokens_mlp_dim": 6, **SIZES, **fields})
    params = model.init(jax.random.key(0), jnp.zeros((1, *image_size, channels)))["params"]
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), params)


def tokens(model, params, images):
    """What comes out before the tokens are pooled: (batch, rows, columns, channels)."""
    _, state = model.apply(
        {"params": params}, images, capture_intermediates=lambda module, _: module.name == "pre_head_layer_norm"
    )
    out = state["intermediates"]["pre_head_layer_norm"]["__call__"][0]
    grid = tuple(side // model.patch_size for side in images.shape[1:3])
    return out.reshape(*grid, len(images), -1).transpose(2, 0, 1, 3)


@pytest.mark.parametrize(("image_size", "copies"), [((12, 12), (2, 2)), ((8, 12), (3, 2)), ((12, 8), (1, 3))])
def test_every_tile_comes_out_as_the_small_network_has_it(image_size, copies):
    model, params = mixer(image_size)
    height, width = image_size
    images = np.random.default_rng(1).normal(size=(2, height * copies[0], width * copies[1], 3)).astype(np.float32)
    large = model.clone(tokens_mlp_dim=6 * copies[0] * copies[1])
    grid = (height // 4, width // 4)
    out = tokens(large, tiled(params, grid, copies), images)
    for i in range(copies[0]):
        for j in range(copies[1]):
            tile = images[:, i * height : (i + 1) * height, j * width : (j + 1) * width]
            part = out[:, i * grid[0] : (i + 1) * grid[0], j * grid[1] : (j + 1) * grid[1]]
            np.testing.assert_allclose(part, tokens(model, params, tile), atol=1e-5)


def test_the_logits_of_one_image_in_every_tile_are_those_of_the_image():
    model, params = mixer((12, 12))
    image = np.random.default_rng(1).normal(size=(1, 12, 12, 3)).astype(np.float32)
    large = model.clone(tokens_mlp_dim=24)
    logits = large.apply({"params": tiled(params, (3, 3), (2, 2))}, np.tile(image, (1, 2, 2, 1)))
    np.testing.assert_allclose(logits, model.apply({"params": params}, image), atol=1e-5)


@pytest.mark.parametrize("new_grid", [(5, 7), (2, 2), (6, 3), (3, 3)])
def test_interpolated_weights_are_pillows(new_grid):
    _, params = mixer((12, 12))
    before, after = (p["MixerBlock_1"]["token_mixing"] for p in (params, interpolated(params, (3, 3), new_grid)))

    def pillow(along_tokens):  # bilinear, smoothed on the way down
        image = Image.fromarray(np.asarray(along_tokens).reshape(3, 3), "F")
        return np.asarray(image.resize(new_grid[::-1], Image.Resampling.BILINEAR)).reshape(-1)

    share = 9 / (new_grid[0] * new_grid[1])
    for unit in range(6):
        expected = pillow(before["Dense_0"]["kernel"][:, unit]) * share
        np.testing.assert_allclose(after["Dense_0"]["kernel"][:, unit], expected, atol=1e-5)
        expected = pillow(before["Dense_1"]["kernel"][unit])
        np.testing.assert_allclose(after["Dense_1"]["kernel"][unit], expected, atol=1e-5)
    np.testing.assert_array_equal(after["Dense_0"]["bias"], before["Dense_0"]["bias"])
    np.testing.assert_allclose(after["Dense_1"]["bias"], pillow(before["Dense_1"]["bias"]), atol=1e-5)


def test_of_an_even_image_an_interpolated_network_that_was_even_sees_the_same():
    model, params = mixer((12, 12))
    for name in (f"MixerBlock_{i}" for i in range(3)):  # every place of the grid alike
        for layer, axis in (("Dense_0", 0), ("Dense_1", 1)):
            kernel = params[name]["token_mixing"][layer]["kernel"]
            params[name]["token_mixing"][layer]["kernel"] = jnp.broadcast_to(
                kernel.mean(axis, keepdims=True), kernel.shape
            )
        bias = params[name]["token_mixing"]["Dense_1"]["bias"]
        params[name]["token_mixing"]["Dense_1"]["bias"] = jnp.full_like(bias, 0.2)
    patch = np.random.default_rng(1).normal(size=(1, 4, 4, 3)).astype(np.float32)
    expected = model.apply({"params": params}, np.tile(patch, (1, 3, 3, 1)))
    logits = model.apply({"params": interpolated(params, (3, 3), (5, 2))}, np.tile(patch, (1, 5, 2, 1)))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_rest_stays():
    _, params = mixer((12, 12))
    for other in (tiled(params, (3, 3), (2, 2)), interpolated(params, (3, 3), (4, 4))):
        same = jax.tree.map(np.array_equal, {**params}, {**other})
        differ = {jax.tree_util.keystr(path) for path, equal in jax.tree_util.tree_leaves_with_path(same) if not equal}
        assert differ
        assert all("token_mixing" in path for path in differ)
