"""MLP-Mixer, as in "MLP-Mixer: An all-MLP Architecture for Vision" (arXiv 2105.01601, section 2 and figure 1).

Parameter names and shapes are those of the paper's released checkpoints. Activations are (tokens, batch, channels).
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.models import cpu
from mixer_jax.models.layers import Dense, LayerNorm, Stem, depth_scale, draw_words, dropout, initializers, precision


def _exact(x: jax.Array) -> jax.Array:
    # With erf, which XLA computes in half the time of Flax's erfc.
    return 0.5 * x * (1.0 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


GELUS = {
    "tanh": cpu.recomputed(functools.partial(nn.gelu, approximate=True)),  # the paper's code and its checkpoints
    "exact": cpu.recomputed(_exact),  # PyTorch's and timm's
}


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them, along the tokens or the channels.

    Attributes:
      mlp_dim: the width of the hidden layer.
      axis: 0 mixes the tokens, -1 the channels.
      dropout_rate: the rate of dropout after each dense layer.
      stochastic_depth_rate: the probability that the result of an example is set to zero.
      gelu: "tanh" or "exact".
      dtype: the dtype of the computation; parameters are float32.
      initialization: how the parameters are initialised, "paper" or "torch", as in `layers.initializers`.
    """

    mlp_dim: int
    axis: int = -1
    dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    gelu: str = "tanh"
    dtype: jnp.dtype = jnp.float32
    initialization: str = "paper"

    @nn.compact
    def __call__(self, x: jax.Array, words: Sequence[jax.Array | None] = (None,) * 3) -> jax.Array:
        """Map (tokens, batch, channels) to the same shape.

        Args:
          x: activations (tokens, batch, channels).
          words: three rows (batch,) from `layers.draw_words`, which decide what is dropped: two for dropout and one for
            stochastic depth. If they are None, nothing is dropped.
        """
        y = Dense(self.mlp_dim, self.axis, self.dtype, self.initialization)(x)
        y = dropout(y, words[0], self.dropout_rate, GELUS[self.gelu], stored=self.axis == 0)
        scale = depth_scale(words[2], self.stochastic_depth_rate, self.dtype)
        y = Dense(x.shape[self.axis], self.axis, self.dtype, self.initialization)(y, scale)
        return dropout(y, words[1], self.dropout_rate)


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing, each with a LayerNorm before it and a skip connection around it.

    Attributes:
      tokens_mlp_dim: the hidden width of the token-mixing MLP (the paper's D_S).
      channels_mlp_dim: the hidden width of the channel-mixing MLP (the paper's D_C).
      token_mixing, channel_mixing: False omits that half, including its norm.
      ablated_norm: whether a block without one of its halves keeps the norm of that half and applies it to the output
        of the block, as in a published ablation.
      stochastic_depth_rate: the probability that an example skips a branch.
      dropout_rate, gelu, dtype, initialization: as in `MlpBlock`.
      layer_norm_epsilon: 1e-6 in the paper's code, 1e-5 in PyTorch.
    """

    tokens_mlp_dim: int
    channels_mlp_dim: int
    token_mixing: bool = True
    channel_mixing: bool = True
    ablated_norm: bool = False
    stochastic_depth_rate: float = 0.0
    dropout_rate: float = 0.0
    gelu: str = "tanh"
    layer_norm_epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32
    initialization: str = "paper"

    @nn.compact
    def __call__(self, x: jax.Array, words: Sequence[jax.Array | None] = (None,) * 6) -> jax.Array:
        """Map (tokens, batch, channels) to the same shape.

        Args:
          x: activations (tokens, batch, channels).
          words: six arrays of random uint32s, three for each `MlpBlock`.
        """
        # The names are explicit, because Flax would number the norm of a block without token mixing LayerNorm_0.
        if self.token_mixing:
            y = LayerNorm(self.layer_norm_epsilon, self.dtype, name="LayerNorm_0")(x)
            x = x + self._mlp(self.tokens_mlp_dim, axis=0, name="token_mixing")(y, words[:3])
        if self.channel_mixing:
            y = LayerNorm(self.layer_norm_epsilon, self.dtype, name="LayerNorm_1")(x)
            x = x + self._mlp(self.channels_mlp_dim, axis=-1, name="channel_mixing")(y, words[3:])
        if self.ablated_norm and not (self.token_mixing and self.channel_mixing):
            name = "LayerNorm_0" if self.channel_mixing else "LayerNorm_1"
            x = LayerNorm(self.layer_norm_epsilon, self.dtype, name=name)(x)
        return x

    def _mlp(self, mlp_dim: int, axis: int, name: str) -> MlpBlock:
        rates = self.dropout_rate, self.stochastic_depth_rate
        return MlpBlock(mlp_dim, axis, *rates, self.gelu, self.dtype, self.initialization, name=name)


class MlpMixer(nn.Module):
    """The MLP-Mixer: patches to tokens, a stack of Mixer blocks, the mean over the tokens, and a linear head.

    The image size at initialisation fixes the number of tokens. Images need not be square. Only reverse-mode
    differentiation is supported (`jax.grad`, `jax.vjp`, also nested); `jax.jvp` and `jax.jacfwd` raise a TypeError.

    Attributes:
      num_classes: the width of the head; 0 for no head, which makes the features the output.
      num_blocks: the number of Mixer blocks.
      patch_size: the side of the square patches, in pixels.
      hidden_dim: the channels of a token (the paper's C).
      stochastic_depth_rate: the rate of the last block. The rate rises linearly from 0 in the first block.
      pre_head_norm: whether a LayerNorm precedes the mean over the tokens.
      zero_init_head: whether the head is initialised with zeros, as in the paper's code.
      tokens_mlp_dim, channels_mlp_dim, token_mixing, channel_mixing, ablated_norm, dropout_rate, gelu,
        layer_norm_epsilon, dtype, initialization: as in `MixerBlock`.
    """

    num_classes: int
    num_blocks: int
    patch_size: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    token_mixing: bool = True
    channel_mixing: bool = True
    ablated_norm: bool = False
    stochastic_depth_rate: float = 0.0
    dropout_rate: float = 0.0
    gelu: str = "tanh"
    layer_norm_epsilon: float = 1e-6
    pre_head_norm: bool = True
    zero_init_head: bool = True
    dtype: jnp.dtype = jnp.float32
    initialization: str = "paper"

    def widest(self, image_shape: tuple[int, int, int]) -> int:
        """Return the size in bytes of the largest activation for one image (height, width, channels)."""
        num_tokens = image_shape[0] * image_shape[1] // self.patch_size**2
        of_channels = num_tokens * max(self.hidden_dim, self.channels_mlp_dim * self.channel_mixing)
        of_tokens = self.hidden_dim * self.tokens_mlp_dim * self.token_mixing
        return max(of_channels, of_tokens) * jnp.dtype(self.dtype).itemsize

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Return the logits of images.

        Args:
          images: (batch, height, width, channels) float; height and width are divisible by `patch_size`.
          train: whether dropout and stochastic depth are active. They draw from the rng stream "dropout".
          positions: (batch,) int, the position of each example in the global batch; by default 0, 1, 2, ...

        Returns:
          Logits (batch, num_classes), float32; without a head, features (batch, hidden_dim).
        """
        words: Any = (None,) * 6 * self.num_blocks
        if train and (self.dropout_rate or self.stochastic_depth_rate):
            positions = jnp.arange(images.shape[0]) if positions is None else positions
            words = jnp.unstack(draw_words(self.make_rng("dropout"), positions, 6 * self.num_blocks))
        x = Stem(self.hidden_dim, self.patch_size, self.dtype, self.initialization, name="stem")(images)
        for i in range(self.num_blocks):
            x = MixerBlock(
                tokens_mlp_dim=self.tokens_mlp_dim,
                channels_mlp_dim=self.channels_mlp_dim,
                token_mixing=self.token_mixing,
                channel_mixing=self.channel_mixing,
                ablated_norm=self.ablated_norm,
                stochastic_depth_rate=self.stochastic_depth_rate * i / max(self.num_blocks - 1, 1),
                dropout_rate=self.dropout_rate,
                gelu=self.gelu,
                layer_norm_epsilon=self.layer_norm_epsilon,
                dtype=self.dtype,
                initialization=self.initialization,
                name=f"MixerBlock_{i}",
            )(x, words[6 * i : 6 * i + 6])
        if self.pre_head_norm:
            x = LayerNorm(self.layer_norm_epsilon, self.dtype, name="pre_head_layer_norm")(x)
        # The mean and the head stay in float32: they cost next to nothing, and the loss is computed from their result.
        x = jnp.mean(x.astype(jnp.float32), axis=0)
        if not self.num_classes:
            return x
        kernel_init, bias_init = initializers(self.initialization, self.hidden_dim)
        if self.zero_init_head:
            kernel_init = bias_init = nn.initializers.zeros
        head = nn.Dense(
            self.num_classes, precision=precision(x), kernel_init=kernel_init, bias_init=bias_init, name="head"
        )
        return head(x)
