"""Large batches give what small ones do: jax 0.10.2 computes some fusions wrongly beyond 32,768 rows on a CPU.

Those of a product, a square and a sum (https://github.com/jax-ml/jax/issues/39103), such as a layer norm has.
"""

import jax
import numpy as np
import pytest

from mixer_jax.models import MlpMixer

IMAGES = np.random.default_rng(0).normal(size=(1024, 32, 32, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 10, 1024)


@pytest.fixture(scope="module")
def model():
    sizes = {"num_blocks": 2, "patch_size": 4, "hidden_dim": 64, "tokens_mlp_dim": 32, "channels_mlp_dim": 128}
    model = MlpMixer(10, zero_init_head=False, **sizes)
    return model, model.init(jax.random.key(0), IMAGES[:1])


@pytest.mark.parametrize("size", [512, 1024])  # 32,768 and 65,536 tokens
def test_logits_and_gradients_of_a_large_batch_are_those_of_its_parts(model, size):
    model, params = model

    @jax.jit
    def step(params, images, labels):
        def loss(params):
            logits = model.apply(params, images)
            return -jax.nn.log_softmax(logits)[np.arange(len(labels)), labels].mean(), logits

        (value, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, logits, gradient

    value, logits, gradient = step(params, IMAGES[:size], LABELS[:size])
    parts = [step(params, IMAGES[i : i + 64], LABELS[i : i + 64]) for i in range(0, size, 64)]
    np.testing.assert_allclose(logits, np.concatenate([part[1] for part in parts]), atol=1e-4)
    np.testing.assert_allclose(value, np.mean([part[0] for part in parts]), rtol=1e-5)
    for whole, *some in zip(*map(jax.tree.leaves, (gradient, *(part[2] for part in parts))), strict=True):
        np.testing.assert_allclose(whole, np.mean(some, axis=0), atol=1e-5 + 1e-4 * np.abs(whole).max())
