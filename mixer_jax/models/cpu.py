"""Computations that XLA's CPU backend runs faster in a different form. Other backends use the usual form."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Function = Callable[..., jax.Array]


def with_cpu_gradient(backward: Callable[..., Any], flat: bool = False) -> Callable[[Function], Function]:
    """Give a function of arrays a backward pass that is used only when the function is compiled for a CPU.

    Args:
      backward: `backward(arguments, gradient)` returns the gradient with respect to each argument, given the gradient
        with respect to the result.
      flat: on a CPU, reshape the first argument to 2-D before calling the function. In 3-D, a training step of Nano/4
        took 1.5 times as long.

    Returns:
      A decorator. The decorated function is differentiable in reverse mode only.
    """

    def decorate(function: Function) -> Function:
        def default(arguments, gradient):
            return jax.vjp(function, *arguments)[1](gradient)

        def of_platform(arguments, gradient):
            return jax.lax.platform_dependent(arguments, gradient, cpu=backward, default=default)

        def forward(*arguments):
            if not flat:
                return function(*arguments)

            def rows(x, *rest):
                return function(x.reshape(-1, x.shape[-1]), *rest).reshape(*x.shape[:-1], -1)

            return jax.lax.platform_dependent(*arguments, cpu=rows, default=function)

        wrapped = jax.custom_vjp(forward)
        wrapped.defvjp(lambda *arguments: (forward(*arguments), arguments), of_platform)
        return functools.wraps(function)(wrapped)

    return decorate


def if_cpu(function: Function, x: jax.Array, *rest: jax.Array) -> jax.Array:
    """Return `function(x, *rest)` when compiled for a CPU, else x."""
    return jax.lax.platform_dependent(x, *rest, cpu=function, default=lambda x, *_: x)


def unless_cpu(function: Function, x: jax.Array, *rest: jax.Array) -> jax.Array:
    """Return x when compiled for a CPU, else `function(x, *rest)`."""
    return jax.lax.platform_dependent(x, *rest, cpu=lambda x, *_: x, default=function)


def token_product(arguments: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of `layers.mix_tokens` with respect to its arguments, as matrix products.

    The batch and the channels are merged into one axis. If they were not, XLA would transpose one of the factors.

    Args:
      arguments: x (in, batch, channels) and the kernel (in, features).
      gradient: (features, batch, channels).
    """
    x, kernel = arguments
    flat, gradient = x.reshape(len(x), -1), gradient.reshape(len(gradient), -1)
    return (kernel @ gradient).reshape(x.shape), flat @ gradient.T


def channel_product(arguments: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of `layers.mix_channels` with respect to its arguments.

    On a CPU, XLA is slow if a matrix product contracts the first axis of its left operand. The left operand is
    therefore transposed beforehand.

    Args:
      arguments: x (..., in) and the kernel (in, features).
      gradient: (..., features).
    """
    x, kernel = arguments
    x, gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    transposed = jax.lax.optimization_barrier(x.T)
    return (gradient @ kernel.T).reshape(arguments[0].shape), transposed @ gradient


def recomputed(function: Function) -> Function:
    """Make the gradient of an elementwise function recompute its intermediate results.

    On a CPU, computing the intermediate results again takes less time than keeping them.
    """

    def backward(arguments: tuple[jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
        return jax.vjp(function, jax.lax.optimization_barrier(arguments[0]))[1](gradient)

    return with_cpu_gradient(backward, flat=True)(function)


def layer_norm(epsilon: float) -> Callable[..., Any]:
    """Return a `backward` for `layers.layer_norm`, with as few passes over the activations as possible."""

    def backward(arguments: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
        x, scale, _ = arguments
        mean = jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0.0)
        inverse = jax.lax.rsqrt(variance + epsilon)
        normalized = (x - mean) * inverse
        inner = gradient * scale
        along = jnp.mean(inner * normalized, axis=-1, keepdims=True)
        dx = inverse * (inner - jnp.mean(inner, axis=-1, keepdims=True) - normalized * along)
        rows = tuple(range(x.ndim - 1))
        return dx, *(jnp.sum(y, axis=rows, keepdims=True) for y in (gradient * normalized, gradient))

    return backward
