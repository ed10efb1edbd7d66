"""The layers' sums in bfloat16, against their exact values."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.models import Cnn, Mlp, from_variant
from mixer_jax.models.layers import Dense


@pytest.mark.usefixtures("each_platform")
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("axis", [0, -1])
def test_the_gradient_of_a_bias_is_summed_in_float32(axis, scale):
    """16,384 terms of 2^-10, which bfloat16 would stop adding up at 2^-2: half of the last place is then 2^-11."""
    layer, x = Dense(2, axis, jnp.bfloat16), jnp.zeros((128, 128, 128), jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)["params"]
    scale = None if scale is None else jnp.full(128, scale, jnp.bfloat16)

    def loss(params):
        y = layer.apply({"params": params}, x, scale)
        assert y.dtype == jnp.bfloat16
        return jnp.sum(y.astype(jnp.float32)) * 2**-10

    np.testing.assert_array_equal(jax.grad(loss)(params)["bias"], [16.0, 16.0])


@pytest.mark.parametrize("model", [from_variant("Pico/4", 10, stochastic_depth_rate=0.5), Mlp(10), Cnn(10)])
def test_no_gradient_is_summed_in_bfloat16(model):
    images, model = jnp.ones((2, 8, 8, 3)), model.clone(dtype=jnp.bfloat16)
    params, rngs = model.init(jax.random.key(0), images)["params"], {"dropout": jax.random.key(1)}

    def loss(params):
        return jnp.mean(model.apply({"params": params}, images, train=True, rngs=rngs))

    sums = re.findall(r"(\w+)\[[\d,]*\] = reduce_sum", str(jax.make_jaxpr(jax.grad(loss))(params)))
    assert (set(sums), len(sums) > 2) == ({"f32"}, True)
