"""The floating-point operations of a Mixer, and a large matmul to compare its throughput with."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mixer_jax.benchmarks.rounds import Work
from mixer_jax.models import MlpMixer

SIDES = {"cpu": 2048, "other": 8192}  # side of a matrix that keeps the device busy, by platform


def forward_flops(model: MlpMixer, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of the matrix products in a forward pass on one image.

    A multiply-add counts as two.
    """
    height, width, channels = image_shape
    tokens, hidden = height * width // model.patch_size**2, model.hidden_dim
    stem = tokens * model.patch_size**2 * channels * hidden
    token_mixing = 2 * tokens * model.tokens_mlp_dim * hidden * model.token_mixing
    channel_mixing = 2 * tokens * model.channels_mlp_dim * hidden * model.channel_mixing
    return 2 * (stem + model.num_blocks * (token_mixing + channel_mixing) + hidden * model.num_classes)


def training_flops(config: ConfigDict, model: MlpMixer, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of the matrix products in a training step, for each image.

    For each product of the forward pass, the backward pass computes two. With a frozen trunk, it computes only one in
    all, for the gradient of the head's kernel. Sharpness-aware minimisation computes two gradients.
    """
    forward = forward_flops(model, image_shape)
    backward = 2 * model.hidden_dim * model.num_classes if config.frozen_trunk else 2 * forward
    return (forward + backward) * (2 if config.optimizer.sam_rho else 1)


def matrix_product(device: jax.Device, dtype: jnp.dtype) -> tuple[Work, int]:
    """Return a workload that repeatedly multiplies two large square matrices in one dispatch, and their side length."""
    side = SIDES.get(device.platform, SIDES["other"])
    # Scaled, so that repeated products neither grow nor vanish; an orthogonal factor would cost more than it is worth.
    a, b = jax.random.normal(jax.random.key(0), (2, side, side), dtype) / jnp.asarray(side**0.5, dtype)
    a, b = jax.device_put((a, b), device)

    @jax.jit
    def products(a: jax.Array, b: jax.Array, times: int) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: x @ b, a)

    jax.block_until_ready(products(a, b, 1))
    return Work(lambda times: jax.block_until_ready(products(a, b, times)), flops=2 * side**3), side
