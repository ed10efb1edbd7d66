"""The Mixer in PyTorch: the same function of the same weights; skipped where torch is not installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.models import MlpMixer

torch = pytest.importorskip("torch", reason="needs torch")
pytestmark = pytest.mark.torch

OPTIONS = [
    {},
    {"gelu": "exact", "layer_norm_epsilon": 1e-3},
    {"pre_head_norm": False},
    {"token_mixing": False},
    {"channel_mixing": False},
    {"channel_mixing": False, "ablated_norm": True},
    {"token_mixing": False, "ablated_norm": True},
    {"token_mixing": False, "channel_mixing": False, "ablated_norm": True},
]


def both(options):
    from mixer_jax.interop.torch_mixer import TorchMixer, to_torch

    sizes = {"num_classes": 5, "num_blocks": 2, "patch_size": 4, "hidden_dim": 8}
    ours = MlpMixer(**sizes, tokens_mlp_dim=6, channels_mlp_dim=12, zero_init_head=False, **options)
    images = np.random.default_rng(0).normal(size=(3, 8, 12, 3)).astype(np.float32)
    params = ours.init(jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda x: x + 0.1, params)  # biases and scales that matter
    theirs = TorchMixer(ours, images.shape[1:])
    theirs.load_state_dict(to_torch(params))
    return ours, params, images, theirs


@pytest.mark.parametrize("options", OPTIONS)
def test_logits_and_gradients_are_the_same(options):
    from mixer_jax.interop.torch_mixer import to_torch

    ours, params, images, theirs = both(options)
    logits = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(ours.apply({"params": params}, images), logits.detach(), atol=1e-5)
    torch.logsumexp(logits, -1).sum().backward()
    expected = jax.grad(lambda p: jnp.sum(jax.nn.logsumexp(ours.apply({"params": p}, images), -1)))(params)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == to_torch(expected).keys()
    for name, gradient in to_torch(expected).items():
        np.testing.assert_allclose(gradient, gradients[name], atol=1e-5)


def test_stochastic_depth_drops_whole_examples_in_training_only():
    from mixer_jax.interop.torch_mixer import StochasticDepth

    drop, x = StochasticDepth(0.3), torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    y = drop(x)
    gone = (y == 0).all(2).all(1)
    assert abs(gone.float().mean() - 0.3) < 0.03
    np.testing.assert_allclose(y[~gone], 1 / 0.7, rtol=1e-6)
    assert drop.eval()(x) is x
