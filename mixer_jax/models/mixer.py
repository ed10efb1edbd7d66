"""MLP-Mixer as in "MLP-Mixer: An all-MLP Architecture for Vision" (arXiv 2105.01601, section 2 and figure 1).

Parameter names and shapes are those of the paper's released checkpoints.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

GELUS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": lambda x: nn.gelu(x, approximate=True),  # the paper's code and its checkpoints
    "exact": lambda x: nn.gelu(x, approximate=False),  # PyTorch's and timm's
}


class ExampleDropout(nn.Module):
    """Inverted dropout whose mask depends on an example's position in the global batch, not on the device it is on.

    Attributes:
      rate: probability of dropping.
      whole: drop all of an example's entries together: stochastic depth (torchvision `StochasticDepth`, mode "row").
    """

    rate: float
    whole: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        """Maps x (batch, ...) to the same shape; `positions` (batch,) int, or None for evaluation."""
        if positions is None or self.rate == 0.0:
            return x
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(self.make_rng("dropout"), positions)
        shape = (1,) * (x.ndim - 1) if self.whole else x.shape[1:]
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, shape))(keys)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them, over the last axis.

    Attributes:
      mlp_dim: width of the hidden layer.
      dropout_rate: dropout after each dense layer.
      gelu: "tanh" or "exact".
      dtype: of the computation; parameters are float32.
    """

    mlp_dim: int
    dropout_rate: float = 0.0
    gelu: str = "tanh"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array | None = None) -> jax.Array:
        """Maps (batch, ..., features) to the same shape."""
        features = x.shape[-1]
        x = nn.Dense(self.mlp_dim, dtype=self.dtype)(x)
        x = GELUS[self.gelu](x)
        x = ExampleDropout(self.dropout_rate)(x, positions)
        x = nn.Dense(features, dtype=self.dtype)(x)
        return ExampleDropout(self.dropout_rate)(x, positions)


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing, each with a LayerNorm before and a skip connection around it.

    Attributes:
      tokens_mlp_dim: hidden width of the token-mixing MLP (the paper's D_S).
      channels_mlp_dim: hidden width of the channel-mixing MLP (the paper's D_C).
      token_mixing, channel_mixing: False leaves that half out, norm and all.
      stochastic_depth_rate: probability that an example skips a branch.
      dropout_rate, gelu, dtype: as in `MlpBlock`.
      layer_norm_epsilon: 1e-6 in the paper's code, 1e-5 in PyTorch.
    """

    tokens_mlp_dim: int
    channels_mlp_dim: int
    token_mixing: bool = True
    channel_mixing: bool = True
    stochastic_depth_rate: float = 0.0
    dropout_rate: float = 0.0
    gelu: str = "tanh"
    layer_norm_epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array | None = None) -> jax.Array:
        """Maps (batch, tokens, channels) to the same shape."""
        # Named, not numbered by Flax: a channel-only block must still call its norm LayerNorm_1.
        if self.token_mixing:
            y = nn.LayerNorm(self.layer_norm_epsilon, dtype=self.dtype, name="LayerNorm_0")(x)
            y = jnp.swapaxes(y, 1, 2)
            y = self._mlp(self.tokens_mlp_dim, "token_mixing")(y, positions)
            y = jnp.swapaxes(y, 1, 2)
            x = x + ExampleDropout(self.stochastic_depth_rate, whole=True)(y, positions)
        if self.channel_mixing:
            y = nn.LayerNorm(self.layer_norm_epsilon, dtype=self.dtype, name="LayerNorm_1")(x)
            y = self._mlp(self.channels_mlp_dim, "channel_mixing")(y, positions)
            x = x + ExampleDropout(self.stochastic_depth_rate, whole=True)(y, positions)
        return x

    def _mlp(self, mlp_dim: int, name: str) -> MlpBlock:
        return MlpBlock(mlp_dim, self.dropout_rate, self.gelu, self.dtype, name=name)


class MlpMixer(nn.Module):
    """Patches to tokens, a stack of Mixer blocks, mean over the tokens, linear head.

    The number of tokens is fixed by the image size the parameters are initialised with; images need not be square.

    Attributes:
      num_classes: width of the head.
      num_blocks: number of Mixer blocks.
      patch_size: side of the square patches, in pixels.
      hidden_dim: channels of a token (the paper's C).
      stochastic_depth_rate: rate of the last block; it rises linearly from 0 at the first.
      pre_head_norm: LayerNorm before the mean over the tokens.
      zero_init_head: start the head at zero, as the paper's code does.
      tokens_mlp_dim, channels_mlp_dim, token_mixing, channel_mixing, dropout_rate, gelu, layer_norm_epsilon,
        dtype: as in `MixerBlock`.
    """

    num_classes: int
    num_blocks: int
    patch_size: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    token_mixing: bool = True
    channel_mixing: bool = True
    stochastic_depth_rate: float = 0.0
    dropout_rate: float = 0.0
    gelu: str = "tanh"
    layer_norm_epsilon: float = 1e-6
    pre_head_norm: bool = True
    zero_init_head: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Computes the logits.

        Args:
          images: (batch, height, width, channels) float, height and width divisible by `patch_size`.
          train: whether dropout and stochastic depth are active; they draw from the rng stream "dropout".
          positions: (batch,) int, each example's position in the global batch; by default 0, 1, 2, ...

        Returns:
          Logits (batch, num_classes), float32.
        """
        if not train:
            positions = None
        elif positions is None:
            positions = jnp.arange(images.shape[0])
        patch = (self.patch_size, self.patch_size)
        x = nn.Conv(self.hidden_dim, patch, strides=patch, padding="VALID", dtype=self.dtype, name="stem")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for i in range(self.num_blocks):
            x = MixerBlock(
                tokens_mlp_dim=self.tokens_mlp_dim,
                channels_mlp_dim=self.channels_mlp_dim,
                token_mixing=self.token_mixing,
                channel_mixing=self.channel_mixing,
                stochastic_depth_rate=self.stochastic_depth_rate * i / max(self.num_blocks - 1, 1),
                dropout_rate=self.dropout_rate,
                gelu=self.gelu,
                layer_norm_epsilon=self.layer_norm_epsilon,
                dtype=self.dtype,
                name=f"MixerBlock_{i}",
            )(x, positions)
        if self.pre_head_norm:
            x = nn.LayerNorm(self.layer_norm_epsilon, dtype=self.dtype, name="pre_head_layer_norm")(x)
        # The pool and the head stay float32: they cost nothing, and the loss is taken on what they return.
        x = jnp.mean(x.astype(jnp.float32), axis=1)
        head_init = nn.initializers.zeros if self.zero_init_head else nn.initializers.lecun_normal()
        return nn.Dense(self.num_classes, kernel_init=head_init, name="head")(x)
