"""Layouts of other projects: recognised, the same bits there and back, and the same function of them."""

import jax
import numpy as np
import pytest

from mixer_jax.errors import UserError
from mixer_jax.models import MlpMixer
from mixer_jax.weights import LAYOUTS, from_layout, read_file, to_layout
from support import GOLDEN

PAPER = GOLDEN / "paper_mixer_tiny.npz"


def same_bits(one, other):
    assert one.keys() == other.keys()
    for key, x in one.items():
        assert (x.dtype, x.shape, x.tobytes()) == (other[key].dtype, other[key].shape, other[key].tobytes()), key


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_and_brings_back_every_bit(layout):
    params, fields, _ = from_layout(read_file(PAPER), "x")
    arrays = to_layout(params, layout)
    back, found, name = from_layout(arrays, "x")
    assert (name, found["variant"]) == (layout, "")  # no variant fits
    same_bits(arrays, to_layout(back, layout))
    jax.tree.map(np.testing.assert_array_equal, params, back)
    assert found == fields | {"gelu": LAYOUTS[layout].gelu, "layer_norm_epsilon": LAYOUTS[layout].layer_norm_epsilon}


def test_older_files_keep_them_beside_the_optimisers_state():
    arrays = read_file(PAPER)
    older = {f"opt/target/{key}": x for key, x in arrays.items()} | {"opt/state/step": np.int32(3)}
    jax.tree.map(np.testing.assert_array_equal, from_layout(older, "x")[0], from_layout(arrays, "x")[0])


@pytest.mark.parametrize("variant", ["B/16", "S/32"])
def test_the_papers_variants_are_named(variant):
    from mixer_jax.models import variant as sizes

    model = MlpMixer(num_classes=5, **sizes(variant))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    _, fields, _ = from_layout(to_layout(params, "paper"), "x")
    assert (fields["variant"], fields["num_classes"], fields["image_shape"]) == (variant, 5, (224, 224, 3))


@pytest.mark.parametrize("field", ["num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim", ""])
def test_other_sizes_have_no_name(field):
    from mixer_jax.models import param_shapes, variant

    sizes = variant("Pico/8")
    sizes |= {field: sizes[field] // 2} if field else {}
    shapes = param_shapes(MlpMixer(num_classes=5, **sizes), (32, 32, 3))
    params = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    _, fields, _ = from_layout(to_layout(params, "timm"), "x")
    assert fields["variant"] == ("" if field else "Pico/8")
    assert {key: fields[key] for key in sizes} == sizes


@pytest.mark.torch
@pytest.mark.parametrize(("image_size", "channels"), [(32, 3), (28, 1)])
def test_logits_and_gradients_equal_lucidrains_live(image_size, channels):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("mlp_mixer_pytorch")
    torch.manual_seed(0)
    module = theirs.MLPMixer(
        image_size=image_size, channels=channels, patch_size=4, dim=24, depth=3, num_classes=7, expansion_factor=2
    ).eval()
    arrays = {key: x.numpy() for key, x in module.state_dict().items()}
    if channels == 1:  # the first layer would be the same for smaller patches of more channels
        with pytest.raises(UserError, match="16 values are 4x4 pixels of 1 channel or 2x2 pixels of 4 channels: set"):
            from_layout(arrays, "live")
    params, fields, name = from_layout(arrays, "live", channels=channels)
    assert (name, fields["num_blocks"], fields["image_shape"]) == ("lucidrains", 3, (image_size, image_size, channels))
    same_bits(arrays, to_layout(params, name))
    images = np.random.default_rng(0).normal(size=(4, image_size, image_size, channels)).astype(np.float32)
    expected = module(torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous())
    sizes = {key: x for key, x in fields.items() if key not in ("variant", "image_shape")}
    apply = jax.jit(MlpMixer(**sizes).apply)
    np.testing.assert_allclose(apply({"params": params}, images), expected.detach().numpy(), atol=1e-5)
    torch.logsumexp(expected, -1).mean().backward()
    gradients = {key: x.grad.numpy() for key, x in module.named_parameters()}
    theirs = from_layout(gradients, "live", channels=channels)[0]
    ours = jax.grad(lambda p: jax.nn.logsumexp(apply({"params": p}, images), -1).mean())(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)
