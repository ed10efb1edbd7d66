"""Optimisers, schedules and the loss against NumPy written from their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixer_jax.data import TrainSampler
from mixer_jax.errors import UserError
from mixer_jax.training.optimizer import OPTIMIZERS, create_optimizer, layer_scales
from mixer_jax.training.schedule import create_schedule
from mixer_jax.weights import from_layout, to_layout
from support import make_config

PARAMS = {
    "Dense_0": {  # with the scale of a norm
        "kernel": np.float32([[1.0, -2.0], [3.0, 0.5]]),
        "bias": np.float32([1.0, -1.0]),
        "scale": np.float32([1.5, 0.5]),
    }
}
GRADIENT = {
    "kernel": np.float32([[0.3, 0.1], [-0.2, 0.4]]),
    "bias": np.float32([0.5, -0.1]),
    "scale": np.float32([-0.3, 0.2]),
}
GRADIENTS = [{"Dense_0": {key: s * x for key, x in GRADIENT.items()}} for s in (1.0, -0.5, 2.0)]


def run(learning_rate=0.1, **fields):
    config = make_config(**{f"optimizer__{key}": value for key, value in fields.items()})
    optimizer = create_optimizer(config.optimizer, optax.constant_schedule(learning_rate))
    params = {"Dense_0": {key: jnp.asarray(value) for key, value in PARAMS["Dense_0"].items()}}
    state = optimizer.init(params)
    for gradient in GRADIENTS:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params["Dense_0"]


def adam(lr, b1, b2, eps, decay, l2=0.0):
    params = {key: value.copy() for key, value in PARAMS["Dense_0"].items()}
    m, v = ({key: np.zeros_like(value) for key, value in params.items()} for _ in range(2))
    for t, gradient in enumerate(GRADIENTS, 1):
        for key, p in params.items():
            kernel = key == "kernel"
            g = gradient["Dense_0"][key] + l2 * p * kernel
            m[key] = b1 * m[key] + (1 - b1) * g
            v[key] = b2 * v[key] + (1 - b2) * g**2
            update = m[key] / (1 - b1**t) / (np.sqrt(v[key] / (1 - b2**t)) + eps)
            params[key] = p - lr * (update + decay * p * kernel)
    return params


def sgd(lr, momentum, l2, clip=np.inf):
    params = {key: value.copy() for key, value in PARAMS["Dense_0"].items()}
    buffer = dict.fromkeys(params, 0.0)
    for gradient in GRADIENTS:
        norm = np.sqrt(sum((g**2).sum() for g in gradient["Dense_0"].values()))
        for key, p in params.items():
            g = gradient["Dense_0"][key] * min(1.0, clip / norm) + l2 * p * (key == "kernel")
            buffer[key] = momentum * buffer[key] + g
            params[key] = p - lr * buffer[key]
    return params


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "adamw", "weight_decay": 0.3}, adam(0.1, 0.9, 0.999, 1e-8, decay=0.3)),
        ({"name": "adamw", "b1": 0.8, "b2": 0.7, "eps": 1e-3}, adam(0.1, 0.8, 0.7, 1e-3, decay=0.0)),
        ({"name": "adam", "weight_decay": 0.3, "b2": 0.99}, adam(0.1, 0.9, 0.99, 1e-8, decay=0.0, l2=0.3)),
        ({"name": "sgd", "momentum": 0.9, "weight_decay": 0.3}, sgd(0.1, 0.9, 0.3)),
        ({"name": "sgd"}, sgd(0.1, 0.0, 0.0)),
        ({"name": "sgd", "momentum": 0.5, "clip_norm": 0.4}, sgd(0.1, 0.5, 0.0, clip=0.4)),
    ],
)
def test_steps_equal_numpy(fields, expected):
    result = run(**fields)
    for key in expected:
        np.testing.assert_allclose(result[key], expected[key], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_decays_kernels_only(name):
    plain, decayed = run(name=name), run(name=name, weight_decay=0.3)
    assert np.all(np.isfinite(plain["kernel"]))
    assert np.any(plain["kernel"] != PARAMS["Dense_0"]["kernel"])
    assert np.any(plain["kernel"] != decayed["kernel"])
    for key in ("bias", "scale"):
        np.testing.assert_allclose(plain[key], decayed[key], rtol=1e-5)


def test_a_layers_learning_rate_is_a_share_of_the_next_ones():
    layers = ["stem", "MixerBlock_0", "MixerBlock_1", "MixerBlock_2", "pre_head_layer_norm", "head"]
    params = {name: {"Dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}} for name in layers}
    config = make_config(optimizer__layer_decay=0.5, optimizer__name="adamw", optimizer__weight_decay=0.1).optimizer
    updates = {}
    for decay in (0.5, 1.0):
        config.layer_decay = decay
        optimizer = create_optimizer(config, optax.constant_schedule(0.1))
        updates[decay] = optimizer.update(params, optimizer.init(params), params)[0]
    for name, share in zip(layers, (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1 / 2, 1), strict=True):
        for key in ("kernel", "bias"):
            scaled, whole = (updates[decay][name]["Dense_0"][key] for decay in (0.5, 1.0))
            np.testing.assert_allclose(scaled, share * whole, rtol=1e-6)


@pytest.mark.torch
def test_layers_decay_as_timms():
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    module = timm.models.mlp_mixer.MlpMixer(num_classes=3, img_size=8, patch_size=4, num_blocks=3, embed_dim=8)
    names = {id(x): name for name, x in module.named_parameters()}
    groups = param_groups_layer_decay(module, layer_decay=0.75)
    theirs = {names[id(x)]: group["lr_scale"] for group in groups for x in group["params"]}
    arrays = {name: np.ones(x.shape, np.float32) for name, x in module.state_dict().items()}
    scaled = layer_scales(from_layout(arrays, "timm")[0], 0.75)
    for name, x in to_layout(scaled, "timm").items():
        np.testing.assert_allclose(x, theirs[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(("num_blocks", "stem_as_matrix"), [(0, True), (11, True), (11, False)])
def test_muon_is_optaxs_on_each_block(num_blocks, stem_as_matrix):
    rng = np.random.default_rng(0)
    block = {
        "LayerNorm_0": {"scale": (6,), "bias": (6,)},
        "token_mixing": {"Dense_0": {"kernel": (4, 8), "bias": (8,)}, "Dense_1": {"kernel": (8, 4), "bias": (4,)}},
    }
    shapes = {"stem": {"kernel": (2, 2, 1, 6), "bias": (6,)}, "head": {"kernel": (6, 3), "bias": (3,)}}
    shapes |= {f"MixerBlock_{i}": block for i in range(num_blocks)}  # whose names do not sort as numbers do

    def drawn():
        def array(shape):
            return jnp.asarray(rng.normal(size=shape), jnp.float32)

        # In the model's order, which jax.tree.map of the whole would sort.
        return {name: jax.tree.map(array, of, is_leaf=lambda x: type(x) is tuple) for name, of in shapes.items()}

    def for_optax(tree):
        stem = dict(tree["stem"])
        if stem_as_matrix:
            stem["kernel"] = stem["kernel"].reshape(-1, 6)
        return tree | {"stem": stem}

    schedule = optax.linear_schedule(0.1, 0.0, 4)
    config = make_config(optimizer__name="muon", optimizer__weight_decay=0.3).optimizer
    config.stem_as_matrix = stem_as_matrix
    ours = create_optimizer(config, schedule)
    kernels = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", for_optax(drawn()))
    theirs = optax.contrib.muon(schedule, weight_decay=0.3, weight_decay_mask=kernels)
    params = drawn()
    state, their_state = ours.init(params), theirs.init(for_optax(params))
    for _ in range(3):
        gradients = drawn()
        updates, state = ours.update(gradients, state, params)
        expected, their_state = theirs.update(for_optax(gradients), their_state, for_optax(params))
        expected = jax.tree.map(lambda x, like: x.reshape(like.shape), expected, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), updates, expected)
        params = optax.apply_updates(params, expected)


def test_optimizer_mistakes_get_one_line():
    with pytest.raises(UserError, match=r"unknown config.optimizer.name 'adamv' .did you mean 'adam.*valid: adabelief"):
        run(name="adamv")
    with pytest.raises(UserError, match="config.optimizer.momentum: adam has no momentum"):
        run(name="adam", momentum=0.9)


def schedule(steps_per_epoch=10, **fields):
    config = make_config(
        optimizer__learning_rate=0.5, epochs=8.0, **{f"schedule__{key}": value for key, value in fields.items()}
    )
    function = create_schedule(config, TrainSampler(steps_per_epoch, 1, 0).steps_in)
    return np.array([float(function(step)) for step in range(80)])


def test_schedules():
    warmup = 0.5 * np.arange(20) / 20
    progress = np.arange(60) / 60
    cosine = 0.1 + (0.5 - 0.1) * (1 + np.cos(np.pi * progress)) / 2
    common = {"warmup_epochs": 2.0, "end_learning_rate": 0.1}
    np.testing.assert_allclose(schedule(name="cosine", **common), np.r_[warmup, cosine], rtol=1e-5)
    np.testing.assert_allclose(schedule(name="linear", **common), np.r_[warmup, 0.5 - 0.4 * progress], rtol=1e-5)
    np.testing.assert_allclose(schedule(name="constant", **common), np.r_[warmup, np.full(60, 0.5)], rtol=1e-5)
    steps = 0.5 * 0.7 ** (np.arange(80) // 10)
    np.testing.assert_allclose(schedule(name="step", decay_rate=0.7), steps, rtol=1e-5)
    steps[:20] = warmup
    np.testing.assert_allclose(schedule(name="step", decay_rate=0.7, warmup_epochs=2.0), steps, rtol=1e-5)
    often = 0.5 * 0.9 ** np.floor(np.arange(80) / 1.2)  # boundaries fall on whole steps, rounded up
    np.testing.assert_allclose(schedule(name="step", decay_rate=0.9, decay_epochs=0.12)[::6], often[::6], rtol=1e-4)
    for little in (0.09, 1e-7, 1e-320):
        with pytest.raises(UserError, match="config.schedule.decay_epochs=.* is less than a step"):
            schedule(name="step", decay_epochs=little)
    with pytest.raises(UserError, match=r"unknown config.schedule.name 'cosin' .did you mean 'cosine'"):
        schedule(name="cosin")


@pytest.mark.parametrize(("epochs", "warmup", "expected"), [(1.0, 0.5, [0.5]), (2.0, 1.9, [0.0, 0.5])])
def test_a_warmup_leaves_the_last_step_at_the_peak(epochs, warmup, expected):
    fields = {"epochs": epochs, "schedule__name": "constant", "schedule__warmup_epochs": warmup}
    function = create_schedule(make_config(optimizer__learning_rate=0.5, **fields), TrainSampler(50, 64, 0).steps_in)
    assert [float(function(step)) for step in range(len(expected))] == expected
