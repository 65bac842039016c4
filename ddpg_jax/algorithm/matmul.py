"""Matrix products of layers and their gradients, in full precision or with operands rounded to bfloat16."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Product = Callable[[jax.Array, jax.Array], jax.Array]
"""(x [..., K], kernel [K, N]) -> x @ kernel [..., N], in the dtype of x."""

MIN_FEATURES = 16
"""A product over fewer features is never rounded: it costs next to nothing, and its features may be angles."""


def full_precision(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes x @ kernel in JAX's default precision (on a CPU, the operands' own)."""
    return x @ kernel


def in_bfloat16(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes x @ kernel with operands rounded to bfloat16 (8 significant bits), summed in the dtype of x.

    So are its gradients; everything else keeps its precision (Micikevicius et al. 2018, "Mixed precision training"; the
    range of bfloat16 needs no scaling of the loss). Layers with fewer than `MIN_FEATURES` inputs are not rounded.
    """
    return _in_bfloat16(x, kernel) if kernel.shape[0] >= MIN_FEATURES else full_precision(x, kernel)


@jax.custom_vjp
def _in_bfloat16(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _rounded(x, kernel, (x.ndim - 1,), (0,))


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _in_bfloat16(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    return _rounded(gradient, kernel, (x.ndim - 1,), (1,)), _rounded(x, gradient, rows, rows)


_in_bfloat16.defvjp(_forward, _backward)


def _rounded(left: jax.Array, right: jax.Array, left_axes: tuple[int, ...], right_axes: tuple[int, ...]) -> jax.Array:
    """Rounds both operands, and returns their product, summed over the given axes of each."""
    left16, right16 = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jnp.tensordot(left16, right16, (left_axes, right_axes), preferred_element_type=left.dtype)
