"""The MNIST study's MLP and CNN against NumPy, PyTorch and their published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax import models
from mixer_jax.errors import UserError
from mixer_jax.models import Cnn, Mlp
from mixer_jax.models.layers import draw_words, dropout
from mixer_jax.training import Trainer
from support import make_config, make_dataset

IMAGES = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype(np.float32)


def made(model):
    return jax.device_get(model.init(jax.random.key(0), IMAGES)["params"])


@pytest.mark.parametrize(("model", "count"), [(Mlp(10), 784 * 256 + 256 + 2570), (Cnn(10), 1_625_866)])
def test_sizes_and_start_are_torchs(model, count):
    params = made(model)
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    for layer in params.values():
        bound = np.prod(layer["kernel"].shape[:-1]) ** -0.5
        for x in layer.values():
            assert 0.8 * bound < np.abs(x).max() < bound


def test_the_mlp_is_numpys():
    params = made(Mlp(10))
    hidden = np.maximum(IMAGES.reshape(3, -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    expected = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(Mlp(10).apply({"params": params}, IMAGES), expected, atol=1e-5)
    np.testing.assert_allclose(Mlp(0).apply({"params": params}, IMAGES), hidden, atol=1e-5)


@pytest.mark.usefixtures("each_platform")
def test_the_cnn_is_numpys():
    params = made(Cnn(10))

    def conv(x, layer):
        x, (height, width) = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1:3]
        shifts = [x[:, i : i + height, j : j + width] @ layer["kernel"][i, j] for i in range(3) for j in range(3)]
        return np.maximum(sum(shifts) + layer["bias"], 0)

    x = conv(conv(IMAGES, params["Conv_0"]), params["Conv_1"])
    x = x.reshape(3, 14, 2, 14, 2, 64).max((2, 4)).reshape(3, -1)
    x = np.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    expected = x @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(Cnn(10).apply({"params": params}, IMAGES), expected, atol=1e-5)


def test_the_cnns_dropout_follows_the_position_and_is_off_in_evaluation():
    params, image = made(Cnn(10)), np.repeat(IMAGES[:1], 64, 0)

    def apply(positions):
        rngs = {"dropout": jax.random.key(1)}
        return Cnn(10).apply({"params": params}, image[: len(positions)], train=True, positions=positions, rngs=rngs)

    logits = np.asarray(apply(jnp.arange(64)))
    assert len(np.unique(logits[:, 0])) == 64
    np.testing.assert_allclose(apply(jnp.arange(32, 64)), logits[32:], atol=1e-5)
    assert np.ptp(np.asarray(Cnn(10).apply({"params": params}, image)), axis=0).max() < 1e-6


def test_the_cnns_dropout_has_the_published_rates(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mixer_jax.models.baselines.dropout", lambda x, words, rate, **settings: drawn.append((rate, settings)) or x
    )
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    jax.eval_shape(lambda: Cnn(10).init(rngs, IMAGES, train=True))
    assert drawn == [(0.25, {"whole_channels": True}), (0.5, {})]


def test_channels_are_dropped_together():
    (words,) = draw_words(jax.random.key(0), jnp.arange(500), 1)
    y = np.asarray(dropout(jnp.ones((6, 500, 20)), words, 0.25, whole_channels=True))
    gone = y == 0
    assert np.array_equal(gone.all(0), gone.any(0))
    assert abs(gone.mean() - 0.25) < 0.01
    np.testing.assert_allclose(y[~gone], 1 / 0.75)


@pytest.mark.torch
@pytest.mark.parametrize("model", [Mlp(10), Cnn(10)])
def test_logits_and_gradients_are_pytorchs(model):
    torch = pytest.importorskip("torch", reason="needs torch")
    from mixer_jax.interop.torch_mixer import to_torch, twin

    params, theirs = made(model), twin(model, (28, 28, 1)).eval()
    theirs.load_state_dict(to_torch(params))
    logits = theirs(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(model.apply({"params": params}, IMAGES), logits.detach(), atol=1e-5)
    torch.logsumexp(logits, -1).sum().backward()
    ours = jax.grad(lambda p: jax.nn.logsumexp(model.apply({"params": p}, IMAGES), -1).sum())(params)
    assert to_torch(ours).keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(to_torch(ours)[name], parameter.grad, atol=1e-4)


def baseline(variant, **fields):
    reset = {"num_blocks": None, "hidden_dim": None, "tokens_mlp_dim": None, "channels_mlp_dim": None}
    return make_config(**{f"model__{key}": value for key, value in (reset | {"variant": variant} | fields).items()})


@pytest.mark.parametrize("variant", ["MLP", "CNN"])
def test_any_config_trains_one(variant):
    config = baseline(variant)
    config.batch_size, config.optimizer.learning_rate = 16, 1e-2
    trainer = Trainer(config, make_dataset(), jax.devices()[:1])
    _, metrics = trainer.train(trainer.init(), 0, 20)
    losses = np.asarray(metrics["loss"])[:20]
    assert losses[-5:].mean() < 0.9 * losses[:5].mean()


def test_mistakes_get_one_line():
    with pytest.raises(UserError, match="config.model.patch_size=4: the CNN does not have"):
        models.create(baseline("CNN", patch_size=4).model, num_classes=10, image_shape=(8, 8, 1))
    with pytest.raises(UserError, match="image size 1x8 is too small for the CNN"):
        models.create(baseline("CNN").model, num_classes=10, image_shape=(1, 8, 1))
    config = baseline("MLP")
    config.optimizer.layer_decay = 0.5
    with pytest.raises(UserError, match="config.optimizer.layer_decay=.*: works only for Mixer models"):
        Trainer(config, make_dataset())
    with pytest.raises(UserError, match=r"unknown model variant 'MPL' .did you mean 'MLP'"):
        models.create(baseline("MPL").model, num_classes=10, image_shape=(8, 8, 1))
    with pytest.raises(UserError, match=r"unknown config.model.initialization 'torhc' .did you mean 'torch'"):
        models.create(make_config(model__initialization="torhc").model, num_classes=10, image_shape=(8, 8, 1))
