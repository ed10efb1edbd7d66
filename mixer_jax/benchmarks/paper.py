"""The Mixer in plain Flax as in the paper's code, a baseline for the speed of this library's implementation."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixer_jax.errors import UserError
from mixer_jax.models import MlpMixer


class _MlpBlock(nn.Module):
    mlp_dim: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.gelu(nn.Dense(self.mlp_dim, dtype=self.dtype)(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype)(y)


class _MixerBlock(nn.Module):
    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.swapaxes(nn.LayerNorm(dtype=self.dtype)(x), 1, 2)
        y = _MlpBlock(self.tokens_mlp_dim, self.dtype, name="token_mixing")(y)
        x = x + jnp.swapaxes(y, 1, 2)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        return x + _MlpBlock(self.channels_mlp_dim, self.dtype, name="channel_mixing")(y)


def require_paper(model: MlpMixer) -> None:
    """Raise `UserError` if a model differs from the paper's in anything but its sizes, dropout and stochastic depth."""
    sizes = (field.name for field in dataclasses.fields(model) if field.default is dataclasses.MISSING)
    free = {*sizes, "dropout_rate", "stochastic_depth_rate", "dtype", "initialization", "zero_init_head"}
    for field in dataclasses.fields(model):
        if field.name not in {*free, "name", "parent"} and getattr(model, field.name) != field.default:
            raise UserError(
                f"config.model.{field.name}={getattr(model, field.name)}: the paper's code has {field.default}"
            )


class PaperMixer(nn.Module):
    """A Mixer with activations (batch, tokens, channels), without dropout or stochastic depth.

    Attributes:
      like: the Mixer from which the sizes, the dtype and the parameter names are taken.
    """

    like: MlpMixer

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Return the logits (batch, num_classes) float32 of images (batch, height, width, channels).

        `train` and `positions` exist for compatibility with `MlpMixer` and have no effect.
        """
        like = self.like
        patch = (like.patch_size, like.patch_size)
        x = nn.Conv(like.hidden_dim, patch, patch, dtype=like.dtype, name="stem")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for i in range(like.num_blocks):
            x = _MixerBlock(like.tokens_mlp_dim, like.channels_mlp_dim, like.dtype, name=f"MixerBlock_{i}")(x)
        x = nn.LayerNorm(dtype=like.dtype, name="pre_head_layer_norm")(x)
        x = jnp.mean(x.astype(jnp.float32), axis=1)
        return nn.Dense(like.num_classes, kernel_init=nn.initializers.zeros, name="head")(x)
