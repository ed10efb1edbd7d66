"""The layers of the Mixer, each with the backward pass that XLA does not find by itself.

They compute what `flax.linen.Dense` and `LayerNorm` compute and have their parameters. Differentiable once and more in
reverse mode, not in forward mode.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from flax.linen.dtypes import promote_dtype


def product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Multiplies two matrices, summing over an axis of each."""
    return jax.lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())))


@jax.custom_vjp
def rows_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel: (rows, in) and (in, features) to (rows, features)."""
    return product(x, kernel, (1, 0))


def _rows_product_backward(residuals, gradient):
    x, kernel = residuals
    return product(gradient, kernel, (1, 1)), product(_transposed(x), gradient, (1, 0))


def _transposed(x: jax.Array) -> jax.Array:
    """The transpose; on a CPU a copy of its own, as XLA is slow there to sum over the first axis of a first factor."""
    return jax.lax.platform_dependent(x, cpu=lambda x: jax.lax.optimization_barrier(x.T), default=lambda x: x.T)


rows_product.defvjp(lambda x, kernel: (rows_product(x, kernel), (x, kernel)), _rows_product_backward)


INITIALIZATIONS = ("paper", "torch")


def initializers(initialization: str, fan_in: int) -> tuple[nn.initializers.Initializer, nn.initializers.Initializer]:
    """Of a kernel with so many inputs, and of its bias.

    "paper": LeCun normal and zero, as in the paper's code. "torch": both uniform within 1 / sqrt(fan_in), as
    `torch.nn.Linear` and `Conv2d` start.
    """
    if initialization == "paper":
        return nn.initializers.lecun_normal(), nn.initializers.zeros
    bound = fan_in**-0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform, uniform


def parameter(module: nn.Module, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]) -> jax.Array:
    """What `module.param(name, init, shape)` gives, of arrays that are not boxed.

    That one traces `init` at every use, only to see that the shapes agree, and so takes a sixth of the time in which a
    training step is traced.
    """
    if module.is_initializing() or not module.has_variable("params", name):
        return module.param(name, init, shape)
    value = module.get_variable("params", name)
    if value.shape != shape:
        raise ScopeParamShapeError(name, module.scope.path_text, value.shape, shape)
    return value


def kernel_and_bias(module: nn.Module, shape: tuple[int, ...], initialization: str) -> tuple[jax.Array, jax.Array]:
    """A layer's kernel, of the shape (..., features), and bias (features,); `initialization` as in `initializers`."""
    kernel_init, bias_init = initializers(initialization, math.prod(shape[:-1]))
    return parameter(module, "kernel", kernel_init, shape), parameter(module, "bias", bias_init, shape[-1:])


class Dense(nn.Module):
    """A dense layer on the columns or on the rows of a matrix.

    Attributes:
      features: width of the result.
      axis: 0 for columns, -1 for rows.
      dtype: of the computation; parameters are float32.
      initialization: as in `initializers`.
    """

    features: int
    axis: int = -1
    dtype: jnp.dtype = jnp.float32
    initialization: str = "paper"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (rows, in) to (rows, features), or (in, columns) to (features, columns)."""
        kernel, bias = kernel_and_bias(self, (x.shape[self.axis], self.features), self.initialization)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if self.axis == 0:
            return product(kernel, x, (0, 0)) + bias[:, None]
        return rows_product(x, kernel) + bias[None]


class Stem(nn.Module):
    """The per-patch linear embedding; a convolution in the paper's code, whose parameters it has.

    Attributes:
      features: channels of a token.
      patch_size: side of the square patches, in pixels, which tile the image.
      dtype: of the computation; parameters are float32.
      initialization: as in `initializers`.
    """

    features: int
    patch_size: int
    dtype: jnp.dtype = jnp.float32
    initialization: str = "paper"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (tokens, batch, features), the patches row by row."""
        batch, height, width, channels = images.shape
        p = self.patch_size
        kernel, bias = kernel_and_bias(self, (p, p, channels, self.features), self.initialization)
        images, kernel, bias = promote_dtype(images, kernel, bias, dtype=self.dtype)
        patches = images.reshape(batch, height // p, p, width // p, p, channels).transpose(1, 3, 0, 2, 4, 5)
        y = rows_product(patches.reshape(-1, p * p * channels), kernel.reshape(-1, self.features)) + bias[None]
        return y.reshape(-1, batch, self.features)


@functools.partial(jax.jit, static_argnums=3)  # so that it is traced once, not in every layer
def normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """LayerNorm of (rows, features) with scale and bias (1, features), float32."""
    return _normalize(x, scale, bias, epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize(x, scale, bias, epsilon):
    return _normalize_forward(x, scale, bias, epsilon)[0]


def _normalize_forward(x, scale, bias, epsilon):
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    # Of all that is computed only the input, which is there anyway, and two numbers a row are kept for the way back.
    return (x - mean) * (inverse * scale) + bias, (x, mean, inverse, scale)


def _normalize_backward(epsilon, residuals, gradient):
    del epsilon
    x, mean, inverse, scale = residuals
    normalized = (x - mean) * inverse
    inner = gradient * scale
    along = jnp.mean(inner * normalized, axis=-1, keepdims=True)
    dx = inverse * (inner - jnp.mean(inner, axis=-1, keepdims=True) - normalized * along)
    return dx, jnp.sum(gradient * normalized, axis=0, keepdims=True), jnp.sum(gradient, axis=0, keepdims=True)


_normalize.defvjp(_normalize_forward, _normalize_backward)


class LayerNorm(nn.Module):
    """Normalises the last axis, computing in float32.

    Attributes:
      epsilon: added to the variance; 1e-6 in the paper's code, 1e-5 in PyTorch.
      dtype: of the result; parameters are float32.
    """

    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., features) to the same shape."""
        scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:])
        bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:])
        y = normalize(x.reshape(-1, x.shape[-1]).astype(jnp.float32), scale[None], bias[None], self.epsilon)
        return y.reshape(x.shape).astype(self.dtype)


class ExampleDropout(nn.Module):
    """Inverted dropout whose mask depends on an example's position in the global batch, not on the device it is on.

    Attributes:
      rate: probability of dropping.
      together: what is dropped together: "entry" for each by itself, "channel" for all of a channel (torch's
        `Dropout2d`), or "example" for all of an example: stochastic depth (torchvision's, mode "row").
    """

    rate: float
    together: str = "entry"

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        """Maps x (.., batch, ..), batch the second of three axes, to the same shape.

        `positions` (batch,) are ints, or None for evaluation.
        """
        if positions is None or self.rate == 0.0:
            return x
        places, _, channels = x.shape
        shape = {"entry": (places, channels), "channel": (1, channels), "example": (1, 1)}[self.together]
        keep = bits_of_examples(self.make_rng("dropout"), positions, shape) >= np.uint32(self.rate * 2**32)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


@functools.partial(jax.jit, static_argnums=2)  # as `normalize`
def bits_of_examples(key: jax.Array, positions: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """`random_bits` of words that each example, at its position (batch,) in the global batch, draws with the key."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    return random_bits(jax.vmap(lambda key: jax.random.bits(key, (2,)))(keys), shape)


def random_bits(words: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Hashes of two random words an example (batch, 2) and of each place and channel: (places, batch, channels) uint32.

    JAX's own generator takes longer than the products that a small Mixer drops from; a mask can do with a hash.
    """
    places, channels = shape

    def of_place(place):
        counter = place * channels + jnp.arange(channels, dtype=jnp.uint32)[None]
        return _mixed(_mixed(counter ^ words[:, :1]) ^ words[:, 1:])

    # On a CPU in a loop, whose result XLA keeps: it would compute the hash anew, and slowly, wherever it is used.
    return jax.lax.platform_dependent(
        jnp.arange(places, dtype=jnp.uint32), cpu=lambda x: jax.lax.map(of_place, x), default=jax.vmap(of_place)
    )


def _mixed(x: jax.Array) -> jax.Array:
    """Wellons' lowbias32: each bit of the result depends on every bit of x."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
