"""The two baselines of a published MNIST study of the Mixer, with PyTorch's initialisation."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from mixer_jax.models.layers import Dense, draw_words, dropout, initializers, precision


class Mlp(nn.Module):
    """One hidden layer of 256 units with ReLU, on the flattened image.

    Attributes:
      num_classes: the width of the head; 0 for no head, which makes the hidden layer the output.
      dtype: the dtype of the computation; parameters are float32.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    def widest(self, image_shape: tuple[int, int, int]) -> int:
        """Return the size in bytes of the largest activation for one image (height, width, channels)."""
        return 256 * jnp.dtype(self.dtype).itemsize

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Map images (batch, height, width, channels) to logits (batch, num_classes), float32.

        `train` and `positions` have no effect.
        """
        x = nn.relu(Dense(256, dtype=self.dtype, initialization="torch")(images.reshape(1, images.shape[0], -1)))
        return _head(x, self.num_classes)


class Cnn(nn.Module):
    """Two 3x3 convolutions with 32 and 64 channels, max-pooling, and a dense layer of 128 units.

    Dropout is applied before and after the dense layer.

    Attributes:
      num_classes: the width of the head; 0 for no head, which makes the dense layer of 128 the output.
      dtype: the dtype of the computation; parameters are float32.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    def widest(self, image_shape: tuple[int, int, int]) -> int:
        """Return the size in bytes of the largest activation on a CPU, for one image (height, width, channels)."""
        return 9 * 32 * image_shape[0] * image_shape[1] * jnp.dtype(self.dtype).itemsize

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Return the logits of images.

        Args:
          images: (batch, height, width, channels) float.
          train: whether dropout is active. It draws from the rng stream "dropout".
          positions: (batch,) int, the position of each example in the global batch; by default 0, 1, 2, ...

        Returns:
          Logits (batch, num_classes), float32; without a head, features (batch, 128).
        """
        batch = images.shape[0]
        words: Any = (None, None)
        if train:
            words = draw_words(self.make_rng("dropout"), jnp.arange(batch) if positions is None else positions, 2)
        x = images
        for features in (32, 64):
            kernel, bias = initializers("torch", 9 * x.shape[-1])
            conv = nn.Conv(
                features, (3, 3), kernel_init=kernel, bias_init=bias, dtype=self.dtype, promote_dtype=_promote_dtype,
                conv_general_dilated=_convolve,
            )  # fmt: skip
            x = nn.relu(conv(x)).astype(self.dtype)
        x = nn.max_pool(x, (2, 2), (2, 2))
        # `dropout` takes (places, batch, channels).
        x = dropout(x.reshape(batch, -1, 64).swapaxes(0, 1), words[0], 0.25, whole_channels=True).swapaxes(0, 1)
        x = nn.relu(Dense(128, dtype=self.dtype, initialization="torch")(x.reshape(1, batch, -1)))
        return _head(dropout(x, words[1], 0.5), self.num_classes)


def _promote_dtype(*arrays: jax.Array | None, dtype: Any = None, inexact: bool = True) -> list[jax.Array | None]:
    """Promote the input and the kernel, but not the bias, whose gradient is then summed in float32."""
    return [*promote_dtype(*arrays[:2], dtype=dtype, inexact=inexact), *arrays[2:]]


def _convolve(x: jax.Array, kernel: jax.Array, *arguments: Any, **settings: Any) -> jax.Array:
    """Compute what `jax.lax.conv_general_dilated` does, for a 3x3 kernel with zero padding."""
    settings["precision"] = precision(x)

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, *arguments, **settings)

    # On a CPU, XLA's own convolution is many times slower inside a loop, such as the loop over an epoch's steps.
    return jax.lax.platform_dependent(x, kernel, cpu=_product_of_shifts, default=convolution)


def _product_of_shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute a convolution as one matrix product, from each pixel and its eight neighbours."""
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    rows = jnp.concatenate(shifts, axis=-1).reshape(batch * height * width, 9 * channels)
    return (rows @ kernel.reshape(9 * channels, -1)).reshape(batch, height, width, -1)


def _head(x: jax.Array, num_classes: int) -> jax.Array:
    """Map (1, batch, features) to float32 logits (batch, num_classes), or to the features if there are no classes."""
    x = x.astype(jnp.float32)
    return (Dense(num_classes, initialization="torch", name="head")(x) if num_classes else x)[0]


BASELINES: dict[str, type[Mlp] | type[Cnn]] = {"MLP": Mlp, "CNN": Cnn}
