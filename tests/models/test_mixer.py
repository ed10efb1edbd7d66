"""The model against the paper's own code (golden arrays), the published table, and NumPy."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file
from scipy import stats

from mixer_jax import models
from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.models import MixerBlock, MlpMixer
from mixer_jax.models.layers import draw_words
from support import GOLDEN, make_config

TINY = {
    "num_classes": 10,
    "num_blocks": 3,
    "patch_size": 4,
    "hidden_dim": 48,
    "tokens_mlp_dim": 24,
    "channels_mlp_dim": 96,
}


@pytest.fixture(scope="module")
def golden():
    arrays = np.load(GOLDEN / "paper_mixer_tiny.npz")
    io = np.load(GOLDEN / "paper_mixer_tiny_io.npz")
    return unflatten_dict({tuple(key.split("/")): arrays[key] for key in arrays}), io


def test_parameters_are_named_and_shaped_as_in_the_paper_checkpoints(golden):
    params, io = golden
    ours = jax.eval_shape(MlpMixer(**TINY).init, jax.random.key(0), io["images"])["params"]
    assert jax.tree.map(lambda x: x.shape, ours) == jax.tree.map(lambda x: x.shape, params)


@pytest.mark.usefixtures("each_platform")
def test_logits_equal_the_paper_code(golden):
    params, io = golden
    logits = MlpMixer(**TINY).apply({"params": params}, io["images"])
    np.testing.assert_allclose(logits, io["logits"], atol=1e-5)


@pytest.mark.usefixtures("each_platform")
def test_gradients_equal_the_paper_code(golden):
    params, io = golden

    def loss(params):
        logits = MlpMixer(**TINY).apply({"params": params}, io["images"])
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    for name, gradient in flatten_dict(jax.grad(loss)(params), sep="/").items():
        np.testing.assert_allclose(gradient, io[f"grad/{name}"], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "name", ["stem/bias", "MixerBlock_1/LayerNorm_0/scale", "MixerBlock_2/token_mixing/Dense_1/bias"]
)
def test_a_parameter_of_another_shape_is_refused_though_it_would_broadcast(name):
    images = np.zeros((2, 8, 8, 3), np.float32)
    params = flatten_dict(MlpMixer(**TINY).init(jax.random.key(0), images)["params"], sep="/")
    params[name] = params[name][:1]
    layer, _, parameter = name.rpartition("/")
    with pytest.raises(
        flax.errors.ScopeParamShapeError, match=rf'"{parameter}" in "/{layer}".*received has shape \(1,\)'
    ):
        MlpMixer(**TINY).apply({"params": unflatten_dict(params, sep="/")}, images)


def test_exact_gelu_and_torch_layout_equal_timm(golden):
    theirs = load_file(GOLDEN / "timm_mixer_tiny.safetensors")
    io = np.load(GOLDEN / "timm_mixer_tiny_io.npz")
    flat = {
        ("stem", "kernel"): theirs["stem.proj.weight"].transpose(2, 3, 1, 0),
        ("stem", "bias"): theirs["stem.proj.bias"],
    }
    for ours, name in (("pre_head_layer_norm", "norm"), ("head", "head")):
        kernel = "scale" if name == "norm" else "kernel"
        flat[ours, kernel], flat[ours, "bias"] = theirs[f"{name}.weight"].T, theirs[f"{name}.bias"]
    for i in range(3):
        block = f"MixerBlock_{i}"
        for j in range(2):
            norm, mlp = f"blocks.{i}.norm{j + 1}", f"blocks.{i}.mlp_{('tokens', 'channels')[j]}"
            flat[block, f"LayerNorm_{j}", "scale"] = theirs[f"{norm}.weight"]
            flat[block, f"LayerNorm_{j}", "bias"] = theirs[f"{norm}.bias"]
            for k in range(2):
                dense = (block, ("token_mixing", "channel_mixing")[j], f"Dense_{k}")
                flat[*dense, "kernel"] = theirs[f"{mlp}.fc{k + 1}.weight"].T
                flat[*dense, "bias"] = theirs[f"{mlp}.fc{k + 1}.bias"]
    logits = MlpMixer(**TINY, gelu="exact").apply(
        {"params": unflatten_dict(flat)}, io["images_nchw"].transpose(0, 2, 3, 1)
    )
    np.testing.assert_allclose(logits, io["logits"], atol=1e-5)


def test_parameter_counts_are_the_published_ones():
    published = {  # with 1,000 classes, as in the paper's and timm's files
        "S/32": 19_104_624, "S/16": 18_528_264, "B/32": 60_293_428, "B/16": 59_880_472, "L/32": 206_939_264,
        "L/16": 208_196_168, "H/14": None,
    }  # fmt: skip
    assert sorted(published) == sorted(models.PAPER_VARIANTS)
    for name, expected in published.items():
        model = MlpMixer(num_classes=1000, **models.variant(name))
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        count = sum(x.size for x in jax.tree.leaves(shapes))
        if expected is None:  # the paper gives 431 million, for its backbone
            assert round(count / 1e6) in (431, 432)
        else:
            assert count == expected, name


def test_nano_is_the_published_cifar_model():
    shapes = jax.eval_shape(
        MlpMixer(num_classes=10, **models.variant("Nano/4")).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 1_132_170


def numpy_block(params, x, token_mixing, channel_mixing, epsilon, output_norm=None):
    def norm(p, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]

    def mlp(p, x):
        x = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]

    if token_mixing:
        x = x + mlp(params["token_mixing"], norm(params["LayerNorm_0"], x).swapaxes(1, 2)).swapaxes(1, 2)
    if channel_mixing:
        x = x + mlp(params["channel_mixing"], norm(params["LayerNorm_1"], x))
    return norm(params[output_norm], x) if output_norm else x


@pytest.mark.parametrize(
    ("token_mixing", "channel_mixing"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_block_with_a_half_switched_off_equals_numpy(token_mixing, channel_mixing):
    block = MixerBlock(6, 7, token_mixing, channel_mixing, layer_norm_epsilon=1e-3)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    tokens_first = x.swapaxes(0, 1)
    params = block.init(jax.random.key(0), tokens_first).get("params", {})
    noisy = jax.tree.map(lambda p: np.asarray(p) + 0.1, params)
    expected = numpy_block(noisy, x.astype(np.float64), token_mixing, channel_mixing, 1e-3)
    np.testing.assert_allclose(block.apply({"params": noisy}, tokens_first).swapaxes(0, 1), expected, atol=1e-5)
    halves = {"LayerNorm_0": token_mixing, "token_mixing": token_mixing}
    halves |= {"LayerNorm_1": channel_mixing, "channel_mixing": channel_mixing}
    assert set(params) == {name for name, on in halves.items() if on}


@pytest.mark.parametrize(
    ("token_mixing", "channel_mixing", "output_norm"),
    [(True, True, None), (True, False, "LayerNorm_1"), (False, True, "LayerNorm_0"), (False, False, "LayerNorm_1")],
)
def test_the_published_ablation_returns_the_norm_of_a_blocks_output(token_mixing, channel_mixing, output_norm):
    block = MixerBlock(6, 7, token_mixing, channel_mixing, ablated_norm=True, layer_norm_epsilon=1e-3)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    params = block.init(jax.random.key(0), x.swapaxes(0, 1))["params"]
    noisy = jax.tree.map(lambda p: np.asarray(p) + 0.1, params)
    expected = numpy_block(noisy, x.astype(np.float64), token_mixing, channel_mixing, 1e-3, output_norm)
    out = block.apply({"params": noisy}, x.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def initialized(initialization):
    """Some layers and the number of their inputs."""
    model = MlpMixer(**TINY, initialization=initialization, zero_init_head=False)
    params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    for path, fan_in in (
        (("stem",), 4 * 4 * 3),
        (("MixerBlock_1", "token_mixing", "Dense_0"), 64),
        (("MixerBlock_1", "token_mixing", "Dense_1"), 24),
        (("MixerBlock_2", "channel_mixing", "Dense_1"), 96),
        (("head",), 48),
    ):
        layer = params
        for key in path:
            layer = layer[key]
        yield layer, fan_in


def test_the_papers_initialisation_is_lecuns_truncated_normal():
    for layer, fan_in in initialized("paper"):
        assert not np.any(layer["bias"])
        truncated = stats.truncnorm(-2, 2)
        values = np.asarray(layer["kernel"]).ravel() * fan_in**0.5 * truncated.std()
        assert stats.kstest(values, truncated.cdf).pvalue > 0.001


def test_torchs_initialisation_is_uniform_within_one_over_the_root_of_the_inputs():
    for layer, fan_in in initialized("torch"):
        for name in ("kernel", "bias"):
            values, bound = np.asarray(layer[name]).ravel(), fan_in**-0.5
            assert np.abs(values).max() < bound
            assert np.abs(values).max() > 0.7 * bound
            if len(values) > 200:
                assert stats.kstest(values, "uniform", (-bound, 2 * bound)).pvalue > 0.001


def test_options_change_what_they_should():
    images = jnp.ones((2, 8, 12, 3))  # not square
    sizes = TINY | {"num_blocks": 1}
    with_norm = MlpMixer(**sizes, zero_init_head=False).init(jax.random.key(0), images)["params"]
    without = MlpMixer(**sizes, pre_head_norm=False).init(jax.random.key(0), images)["params"]
    assert with_norm.keys() - without.keys() == {"pre_head_layer_norm"}
    assert with_norm["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"].shape == (6, 24)
    assert np.any(with_norm["head"]["kernel"])
    assert not np.any(without["head"]["kernel"])


def test_bfloat16_keeps_parameters_and_logits_float32(golden):
    params, io = golden
    model = MlpMixer(**TINY, dtype=jnp.bfloat16)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(model.init(jax.random.key(0), io["images"])))
    logits = model.apply({"params": params}, io["images"])
    assert logits.dtype == jnp.float32
    error = np.abs(logits - io["logits"]).max()
    assert 1e-5 < error < 0.1 * np.abs(io["logits"]).max()


class TestRandomDepth:
    model = MlpMixer(**TINY | {"num_blocks": 3}, stochastic_depth_rate=0.5, dropout_rate=0.0, zero_init_head=False)
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32).repeat(64, 0)

    def apply(self, positions):
        params = self.model.init(jax.random.key(0), self.images)
        rngs = {"dropout": jax.random.key(1)}
        images = self.images[: len(positions)]
        return np.asarray(
            jax.jit(lambda: self.model.apply(params, images, train=True, positions=positions, rngs=rngs))()
        )

    def test_each_example_has_its_own_draw_which_follows_its_position(self):
        logits = self.apply(np.arange(64))
        assert len(np.unique(logits[:, 0])) > 4  # equal images, unequal depth
        np.testing.assert_allclose(self.apply(np.arange(32, 64)), logits[32:], rtol=1e-5, atol=1e-6)

    def test_is_off_in_evaluation_and_needs_no_rng(self):
        params = self.model.init(jax.random.key(0), self.images)
        logits = self.model.apply(params, self.images)
        assert np.ptp(np.asarray(logits), axis=0).max() < 1e-6

    def test_rate_rises_linearly_from_zero_at_the_first_block(self):
        rates = []

        def record(next_function, args, kwargs, context):
            if isinstance(context.module, MixerBlock) and context.method_name == "__call__":
                rates.append(context.module.stochastic_depth_rate)
            return next_function(*args, **kwargs)

        with flax.linen.intercept_methods(record):
            jax.eval_shape(self.model.init, jax.random.key(0), self.images)
        assert rates == [0.0, 0.25, 0.5]

    @pytest.mark.usefixtures("each_platform")
    def test_branches_are_dropped_whole_at_the_given_rate_and_scaled_up(self):
        block = MixerBlock(6, 7, token_mixing=False, stochastic_depth_rate=0.3)
        x = np.random.default_rng(0).normal(size=(5, 1, 4)).astype(np.float32).repeat(4000, 1)
        params = block.init(jax.random.key(0), x)
        params = jax.tree.map(lambda p: p + 0.1, params)  # biases that matter
        branch = np.asarray(block.apply(params, x) - x)
        dropped = np.asarray(block.apply(params, x, draw_words(jax.random.key(0), np.arange(4000), 6)) - x)
        gone = np.all(np.abs(dropped) < 1e-6, axis=(0, 2))
        assert abs(gone.mean() - 0.3) < 0.03
        np.testing.assert_allclose(dropped[:, ~gone], branch[:, ~gone] / 0.7, rtol=1e-4, atol=1e-5)


def test_dropout_drops_single_entries_at_the_given_rate():
    block = models.MlpBlock(8, dropout_rate=0.25)
    x = jnp.ones((6, 500, 10))
    params = block.init(jax.random.key(0), x)
    y = np.asarray(block.apply(params, x, draw_words(jax.random.key(0), jnp.arange(500), 3)))
    assert abs((y == 0).mean() - 0.25) < 0.01
    assert 0 < (y[:, 0] == 0).sum() < y[:, 0].size


class TestCreate:
    @staticmethod
    def create(image_shape=(32, 32, 3), **fields):
        config = make_config(**{f"model__{key}": value for key, value in fields.items()})
        return models.create(config.model, num_classes=10, image_shape=image_shape)

    def test_fields_override_the_variant(self):
        model = self.create(variant="B/16", hidden_dim=24, gelu="exact")
        assert (model.patch_size, model.hidden_dim, model.num_blocks, model.gelu) == (16, 24, 2, "exact")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"variant": "B16"}, "unknown model variant 'B16'.*did you mean 'B/16'.*S/32, S/16"),
            ({"variant": "Q/4"}, "unknown model variant"),
            ({"variant": "Nano/"}, "needs a patch size"),
            ({"variant": "Nano/0"}, "needs a patch size"),
            ({"num_blocks": 0}, "config.model.num_blocks=0: must be in 1..1000"),
            ({"gelu": "erf"}, "unknown config.model.gelu 'erf'.*tanh, exact"),
            ({"patch_size": 5}, "image size 32x32 is not divisible by patch size 5"),
        ],
    )
    def test_mistakes_get_one_line(self, fields, message):
        with pytest.raises(UserError, match=message) as caught:
            self.create(**fields)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_in_float32_keep_it_where_the_default_of_a_device_would_not(dtype):
    model = MlpMixer(**TINY, dtype=jnp.dtype(dtype))
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    lines = jax.jit(model.apply).lower(params, images).as_text().splitlines()
    products = [line for line in lines if "dot_general" in line]
    assert len(products) == 1 + 4 * TINY["num_blocks"] + 1  # stem, blocks, head
    highest = ["precision = [HIGHEST, HIGHEST]" in line for line in products]
    assert highest == [dtype == "float32"] * (len(products) - 1) + [True]  # the head is float32 anyway


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"variant": "Nano/4"}, "Nano/4"),
        ({"variant": "Nano"}, "Nano/4"),  # 32x32 pixels in 64 patches
        ({"variant": "Nano/4", "patch_size": 8}, "Nano/8"),
        ({"variant": "Nano/4", "dropout_rate": 0.1, "gelu": "exact"}, "Nano/4"),
        ({"variant": "Nano/4", "hidden_dim": 64}, "Nano/4 (modified)"),
        ({"variant": "Nano/4", "token_mixing": False}, "Nano/4 (modified)"),
        ({"variant": "MLP"}, "MLP"),
        (
            {
                "variant": "",
                "num_blocks": 1,
                "patch_size": 4,
                "hidden_dim": 8,
                "tokens_mlp_dim": 8,
                "channels_mlp_dim": 8,
            },
            "",
        ),
    ],
)
def test_a_model_has_the_name_of_a_variant_only_if_it_has_its_parts(fields, name):
    config = default_config().model
    config.update(fields)
    model = models.create(config, num_classes=10, image_shape=(32, 32, 3))
    assert models.name_of(config, model) == name
