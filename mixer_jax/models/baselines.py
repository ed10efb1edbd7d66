"""The two models that a published MNIST study measures its Mixer against, which start as PyTorch's layers do."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixer_jax.models.layers import Dense, ExampleDropout, initializers


class Mlp(nn.Module):
    """One hidden layer of 256 with ReLU on the flattened image.

    Attributes:
      num_classes: width of the head; 0: no head, the hidden layer comes out.
      dtype: of the computation; parameters are float32.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    def widest(self, image_shape: tuple[int, int, int]) -> int:
        """Bytes of the largest activation of one image (height, width, channels)."""
        return 256 * jnp.dtype(self.dtype).itemsize

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes), float32."""
        x = nn.relu(Dense(256, dtype=self.dtype, initialization="torch")(images.reshape(images.shape[0], -1)))
        return _head(x, self.num_classes)


class Cnn(nn.Module):
    """Two 3x3 convolutions of 32 and 64, max-pooling, a dense layer of 128; dropout before and after that.

    Attributes:
      num_classes: width of the head; 0: no head, the dense layer of 128 comes out.
      dtype: of the computation; parameters are float32.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    def widest(self, image_shape: tuple[int, int, int]) -> int:
        """Bytes of the largest activation of one image (height, width, channels)."""
        return 64 * image_shape[0] * image_shape[1] * jnp.dtype(self.dtype).itemsize

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, positions: jax.Array | None = None) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes), float32.

        With `train` dropout is active; it draws from the rng stream "dropout" by `positions` (batch,), each example's
        in the global batch.
        """
        batch = images.shape[0]
        if not train:
            positions = None
        elif positions is None:
            positions = jnp.arange(batch)
        x = images
        for features in (32, 64):
            kernel_init, bias_init = initializers("torch", 9 * x.shape[-1])
            conv = nn.Conv(features, (3, 3), dtype=self.dtype, kernel_init=kernel_init, bias_init=bias_init)
            x = nn.relu(conv(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        # (places, batch, channels) is what dropout takes.
        x = ExampleDropout(0.25, "channel")(x.reshape(batch, -1, 64).swapaxes(0, 1), positions).swapaxes(0, 1)
        x = nn.relu(Dense(128, dtype=self.dtype, initialization="torch")(x.reshape(batch, -1)))
        x = ExampleDropout(0.5)(x[None], positions)[0]
        return _head(x, self.num_classes)


def _head(x: jax.Array, num_classes: int) -> jax.Array:
    """Logits, or without classes what they are made of; float32."""
    x = x.astype(jnp.float32)
    if not num_classes:
        return x
    return Dense(num_classes, initialization="torch", name="head")(x)


BASELINES = {"MLP": Mlp, "CNN": Cnn}
