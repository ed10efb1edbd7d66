"""The layers of the Mixer, on activations (tokens, batch, channels).

They have the parameters of `flax.linen.Dense` and `LayerNorm` and compute the same results. In this axis order, both
mixings are plain matrix products, over the first and over the last axis, without a transpose.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from flax.linen.dtypes import promote_dtype

from mixer_jax.models import cpu

INITIALIZATIONS = ("paper", "torch")


def initializers(initialization: str, fan_in: int) -> tuple[nn.initializers.Initializer, nn.initializers.Initializer]:
    """Return the initialisers of a kernel and of its bias.

    Args:
      initialization: "paper" for LeCun normal and zero, as in the paper's code; "torch" for uniform in
        ±1 / sqrt(fan_in) for both, as in `torch.nn.Linear` and `Conv2d`.
      fan_in: the number of inputs of each output unit.
    """
    if initialization == "paper":
        return nn.initializers.lecun_normal(), nn.initializers.zeros
    bound = fan_in**-0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform, uniform


def parameter(module: nn.Module, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]) -> jax.Array:
    """Return what `module.param(name, init, shape)` returns, for arrays that are not boxed.

    `module.param` traces `init` at every use, only to compare the shapes. That takes a sixth of the time of tracing a
    training step.

    Raises:
      ScopeParamShapeError: if the parameter has a different shape.
    """
    if module.is_initializing() or not module.has_variable("params", name):
        return module.param(name, init, shape)
    value: jax.Array = module.get_variable("params", name)
    if value.shape != shape:
        path = module.scope.path_text if module.scope else ""
        raise ScopeParamShapeError(name, path, value.shape, shape)
    return value


def kernel_and_bias(module: nn.Module, shape: tuple[int, ...], initialization: str) -> tuple[jax.Array, jax.Array]:
    """Return the kernel, of shape (..., features), and the bias (features,) of a layer."""
    kernel_init, bias_init = initializers(initialization, math.prod(shape[:-1]))
    return parameter(module, "kernel", kernel_init, shape), parameter(module, "bias", bias_init, shape[-1:])


def precision(x: jax.Array) -> jax.lax.Precision:
    """Return the precision for matrix products with x.

    Products of float32 arrays are computed in full float32. By default, TPUs and GPUs would drop bits.
    """
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT


@cpu.with_cpu_gradient(cpu.channel_product, flat=True)
def mix_channels(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply (tokens, batch, in) by a kernel (in, features)."""
    return jnp.dot(x, kernel, precision=precision(x))


@cpu.with_cpu_gradient(cpu.token_product)
def mix_tokens(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply (in, batch, channels) by a kernel (in, features)."""
    return jnp.einsum("tbc,ts->sbc", x, kernel, precision=precision(x))


class Dense(nn.Module):
    """A dense layer along the tokens or along the channels.

    The bias is added in float32, whatever the dtype, so that its gradient is summed in float32: a sum of many bfloat16
    terms in bfloat16 loses the later ones.

    Attributes:
      features: the width of the result.
      axis: 0 for the tokens, -1 for the channels.
      dtype: the dtype of the computation; parameters are float32.
      initialization: as in `initializers`.
    """

    features: int
    axis: int = -1
    dtype: jnp.dtype = jnp.float32
    initialization: str = "paper"

    @nn.compact
    def __call__(self, x: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        """Map (tokens, batch, channels) to the same shape, except that the size of `axis` becomes `features`.

        With `scale` (batch,), the result of each example is multiplied by its scale. On a CPU, the result itself is
        multiplied. On other backends, the input and the bias are multiplied, because XLA fuses that product into the
        preceding operation.
        """
        kernel, bias = kernel_and_bias(self, (x.shape[self.axis], self.features), self.initialization)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        bias = bias[:, None, None] if self.axis == 0 else bias[None, None]
        mix = mix_tokens if self.axis == 0 else mix_channels
        if scale is None:
            return (mix(x, kernel) + bias).astype(self.dtype)
        scale = scale[None, :, None]
        bias = jnp.broadcast_to(bias, np.broadcast_shapes(bias.shape, scale.shape))
        x, bias = (cpu.unless_cpu(jnp.multiply, y, scale) for y in (x, bias))
        return cpu.if_cpu(jnp.multiply, (mix(x, kernel) + bias).astype(self.dtype), scale)


class Stem(nn.Module):
    """The linear embedding of patches. It has the parameters of the convolution in the paper's code.

    Attributes:
      features: the channels of a token.
      patch_size: the side of the square patches, in pixels. The patches tile the image.
      dtype: the dtype of the computation; parameters are float32.
      initialization: as in `initializers`.
    """

    features: int
    patch_size: int
    dtype: jnp.dtype = jnp.float32
    initialization: str = "paper"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (batch, height, width, channels) to (tokens, batch, features), with the patches row by row."""
        batch, height, width, channels = images.shape
        p = self.patch_size
        kernel, bias = kernel_and_bias(self, (p, p, channels, self.features), self.initialization)
        images, kernel = promote_dtype(images, kernel, dtype=self.dtype)
        patches = images.reshape(batch, height // p, p, width // p, p, channels).transpose(1, 3, 0, 2, 4, 5)
        patches = patches.reshape(-1, batch, p * p * channels)
        return (mix_channels(patches, kernel.reshape(-1, self.features)) + bias[None, None]).astype(self.dtype)


@functools.cache
def layer_norm(epsilon: float) -> Callable[..., jax.Array]:
    """Return the function that normalises x (..., features) and applies scale and bias (1, ..., features), float32."""

    @jax.jit  # so that it is traced once, not in every layer
    @cpu.with_cpu_gradient(cpu.layer_norm(epsilon))
    def normalize(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        mean = jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0.0)
        return (x - mean) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias

    return normalize


class LayerNorm(nn.Module):
    """A layer normalisation of the last axis, computed in float32.

    Attributes:
      epsilon: added to the variance; 1e-6 in the paper's code, 1e-5 in PyTorch.
      dtype: the dtype of the result; parameters are float32.
    """

    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (..., features) to the same shape."""
        scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:])
        bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:])
        scale, bias = (y.reshape((1,) * (x.ndim - 1) + (-1,)) for y in (scale, bias))
        return layer_norm(self.epsilon)(x.astype(jnp.float32), scale, bias).astype(self.dtype)


def draw_words(key: jax.Array, positions: jax.Array, num_words: int) -> jax.Array:
    """Draw random 32-bit words for each example, which depend on its position in the global batch, not on its device.

    Args:
      key: the random key of the step.
      positions: (batch,) int, the position of each example in the global batch.
      num_words: the number of words per example. Each word decides one mask.

    Returns:
      (num_words, batch) uint32.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    return jax.vmap(lambda key: jax.random.bits(key, (num_words,)), out_axes=1)(keys)


def dropout(
    x: jax.Array,
    words: jax.Array | None,
    rate: float,
    function: Callable[[jax.Array], jax.Array] = lambda x: x,
    whole_channels: bool = False,
    stored: bool = True,
) -> jax.Array:
    """Set entries to zero with probability `rate`, apply an elementwise function, and divide by 1 - rate.

    The function maps zero to zero, so zeroing entries before or after it gives the same result. Zeroing them before it
    lets XLA fuse the mask into the preceding matrix product.

    Args:
      x: activations (places, batch, channels).
      words: (batch,) uint32, one row of the result of `draw_words`, or None to drop nothing.
      rate: the probability of dropping an entry.
      function: maps zero to zero, as the identity and GELU do.
      whole_channels: whether a channel is dropped at all places together, as in PyTorch's `Dropout2d`.
      stored: as for `mask`.
    """
    if words is None or not rate:
        return function(x)
    places, _, channels = x.shape
    keep = mask(words, (1 if whole_channels else places, channels), rate, stored)
    return function(jnp.where(keep, x, jnp.zeros_like(x))) / (1.0 - rate)


def depth_scale(words: jax.Array | None, rate: float, dtype: jnp.dtype) -> jax.Array | None:
    """Return the scale of each example's branch in stochastic depth: 0 with probability `rate`, else 1 / (1 - rate).

    This is torchvision's `StochasticDepth` in mode "row".

    Args:
      words: (batch,) uint32, as in `dropout`, or None.
      rate: the probability of dropping the branch.
      dtype: the dtype of the result.

    Returns:
      (batch,), or None if no branch is dropped.
    """
    if words is None or not rate:
        return None
    return ((words >= threshold(rate)) / (1.0 - rate)).astype(dtype)


def threshold(rate: float) -> np.uint32:
    """Return the t for which a uniform uint32 is less than t with probability `rate`."""
    return np.uint32(rate * 2**32)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))  # so that it is traced once, not in every layer
def mask(words: jax.Array, shape: tuple[int, int], rate: float, stored: bool = True) -> jax.Array:
    """Return the entries to keep.

    Args:
      words: (batch,) uint32, random.
      shape: (places, channels).
      rate: the probability of dropping an entry.
      stored: whether an accelerator computes the mask once and stores it. If not, XLA may recompute the mask for each
        use; this is faster where XLA fuses it into large matrix products. A CPU always stores the mask.

    Returns:
      bool (places, batch, channels).
    """
    places, channels = shape
    # The barrier keeps XLA from computing the factors again for each example.
    factors = jax.lax.optimization_barrier(entry_factors((places, 1, channels)))

    def of_place(factors: jax.Array) -> jax.Array:
        return factors * words[:, None] >= threshold(rate)

    def in_turn(factors: jax.Array) -> jax.Array:
        return jax.lax.map(of_place, factors)  # on a CPU, only a loop stores the result

    def at_once(factors: jax.Array) -> jax.Array:
        keep = jax.vmap(of_place)(factors)
        return jax.lax.optimization_barrier(keep) if stored else keep

    return jax.lax.platform_dependent(factors, cpu=in_turn, default=at_once)


def entry_factors(shape: tuple[int, ...]) -> jax.Array:
    """Return a fixed pseudorandom odd uint32 for each entry of an array of that shape.

    The product of an odd number and a uniform random word is uniform modulo 2^32. JAX's own generator takes longer than
    the matrix products of a small Mixer; a multiplicative hash is good enough for a mask.
    """
    # Wellons' lowbias32, in which each bit of the result depends on every bit of x.
    x = jnp.arange(1, math.prod(shape) + 1, dtype=jnp.uint32).reshape(shape)
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return (x ^ (x >> 16)) | np.uint32(1)
