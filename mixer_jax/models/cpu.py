"""What XLA's CPU backend computes faster in another way than it is written; elsewhere none of it is used."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Function = Callable[..., jax.Array]


def with_cpu_gradient(backward: Callable[..., Any], flat: bool = False) -> Callable[[Function], Function]:
    """Give a function of arrays another gradient where it is compiled for a CPU.

    Args:
      backward: `backward(arguments, gradient)` returns the gradient of each argument.
      flat: compute the function there on rows too, all but the last axis of its first argument being one; with three
        axes a training step of Nano/4 took half as long again.

    Returns:
      A decorator. The function it returns is differentiable in reverse mode only.
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
    """Return `function(x, *rest)` where it is compiled for a CPU, elsewhere x."""
    return jax.lax.platform_dependent(x, *rest, cpu=function, default=lambda x, *_: x)


def unless_cpu(function: Function, x: jax.Array, *rest: jax.Array) -> jax.Array:
    """Return x where it is compiled for a CPU, elsewhere `function(x, *rest)`."""
    return jax.lax.platform_dependent(x, *rest, cpu=lambda x, *_: x, default=function)


def token_product(arguments: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the gradient of `layers.mix_tokens`, as products of matrices: of three axes XLA would transpose one."""
    x, kernel = arguments
    flat, gradient = x.reshape(len(x), -1), gradient.reshape(len(gradient), -1)
    return (kernel @ gradient).reshape(x.shape), flat @ gradient.T


def channel_product(arguments: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the gradient of `layers.mix_channels`.

    XLA is slow on a CPU to sum over the first axis of a first factor, so that factor is transposed by a copy.
    """
    x, kernel = arguments
    x, gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    transposed = jax.lax.optimization_barrier(x.T)
    return (gradient @ kernel.T).reshape(arguments[0].shape), transposed @ gradient


def recomputed(function: Function) -> Callable[..., Any]:
    """Return the gradient of an elementwise function from its argument alone.

    That takes less time on a CPU than to keep what the function computed on the way.
    """

    def backward(arguments: tuple[jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
        return jax.vjp(function, jax.lax.optimization_barrier(arguments[0]))[1](gradient)

    return backward


def layer_norm(epsilon: float) -> Callable[..., Any]:
    """Return the gradient of `layers.layer_norm`, in as few passes over the activations as it takes."""

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
