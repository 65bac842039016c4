"""The actor mu(s) and the critic Q(s, a) as Flax modules, which are hashable values without state.

Both have an argument `train`: True while a loss is computed, False while acting and for targets.
"""

from collections.abc import Callable
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.matmul import Product, full_precision

Initializer = Callable[..., jax.Array]
"""(key, shape, dtype) -> an array of that shape. The key is consumed."""

OBS_STATS = "obs_stats"
"""Flax's collection with the mean and the variance of observations (`obs_normalization.py`)."""

MIN_VARIANCE = 1e-8
"""A feature of observations whose variance is not larger counts as one that has not varied."""

NARROW = 16
"""Networks up to this width have the batch on the last axis: on a CPU, twice as fast at 8, but slower from 64 on."""


def uniform(bound: float) -> Initializer:
    """Returns an initialiser that draws from U(-bound, bound). (Flax's `initializers.uniform(s)` draws from [0, s).)"""
    return partial(jax.random.uniform, minval=-bound, maxval=bound)


def _initializers(kind: str, fan_in: int) -> tuple[Initializer, Initializer]:
    """Returns the initialisers of a layer's kernel and bias: the paper's (section 7), or Flax's of that name."""
    if kind == "fan_in_uniform":
        return uniform(fan_in**-0.5), uniform(fan_in**-0.5)
    return getattr(nn.initializers, kind)(), nn.initializers.zeros_init()


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """Returns max(x, 0) elementwise; its derivative, 0 at 0, compiles to a faster kernel than `flax.linen.relu`'s.

    The bits are Flax's for finite numbers; for an infinite x the derivative is NaN.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    # On a CPU, a select is four times slower on a loaded operand than on a computed one (measured). Backwards, the
    # gradient is multiplied by `one` before the select, and so computed.
    one = 1 + 0 * x  # XLA cannot simplify this, because x could be infinite
    return relu(x), jnp.where(x > 0, tangent, 0) * one


class Dense(nn.Module):
    """A linear layer along the last axis of its input, or along the first one of an input [features, B]."""

    size: int
    kernel_init: Initializer
    bias_init: Initializer
    product: Product = full_precision

    @nn.compact
    def __call__(self, x: jax.Array, axis: int) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[axis], self.size), x.dtype)
        bias = self.param("bias", self.bias_init, (self.size,), x.dtype)
        if axis == -1:
            return self.product(x, kernel) + jax.lax.broadcast_to_rank(bias, x.ndim)
        return self.product(kernel.T, x) + bias[:, None]


class Hidden(nn.Module):
    """Hidden layers, each with a product, a normalisation, a ReLU and dropout."""

    sizes: tuple[int, ...]
    initializer: str = "glorot_uniform"
    normalization: str = "none"
    dropout: float = 0.0
    product: Product = full_precision

    @property
    def is_narrow(self) -> bool:
        """Whether the batch is on the last axis (`NARROW`)."""
        return self.normalization == "none" and all(size <= NARROW for size in self.sizes)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, axis: int = -1) -> jax.Array:
        for size in self.sizes:
            x = Dense(size, *_initializers(self.initializer, x.shape[axis]), self.product)(x, axis)
            if self.normalization == "layer":
                x = nn.LayerNorm()(x)
            elif self.normalization == "batch":
                x = batch_norm(train)(x)
            x = relu(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x


class Residual(nn.Module):
    """SimBa's hidden layers: a linear layer, residual blocks x + W2 relu(W1 LN(x)), and a layer normalisation.

    Lee et al. 2024, section 4 (https://arxiv.org/abs/2410.09754). W1 has four times the width, and both are He normal.
    """

    sizes: tuple[int, ...]
    """The width of each block; all are equal."""
    initializer: str = "orthogonal"
    """Of the linear layer."""
    product: Product = full_precision
    normalization = "layer"
    is_narrow = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, axis: int = -1) -> jax.Array:
        if not self.sizes:
            return x
        x = Dense(self.sizes[0], *_initializers(self.initializer, x.shape[-1]), self.product)(x, axis)
        for size in self.sizes:
            he = _initializers("he_normal", size)
            wide = relu(Dense(4 * size, *he, self.product)(nn.LayerNorm()(x), axis))
            x = x + Dense(size, *he, self.product)(wide, axis)
        return nn.LayerNorm()(x)


def batch_norm(train: bool) -> nn.BatchNorm:
    """Returns batch normalisation (paper, section 3): by the minibatch's statistics in losses, else by running ones."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.99)  # Flax's default; the paper gives none


class Standardize(nn.Module):
    """Observations minus their mean, divided by their standard deviation, clipped to ±10 (`obs_normalization.py`).

    A feature that has not varied yet is not divided: nobody knows its scale.
    """

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        shape, dtype = observation.shape[-1:], observation.dtype
        mean = self.variable(OBS_STATS, "mean", jnp.zeros, shape, dtype)
        variance = self.variable(OBS_STATS, "variance", jnp.ones, shape, dtype)
        self.variable(OBS_STATS, "count", jnp.zeros, (), dtype)
        center = jax.lax.broadcast_to_rank(mean.value, observation.ndim)
        deviation = jnp.sqrt(jnp.where(variance.value > MIN_VARIANCE, variance.value, 1.0))
        spread = jax.lax.broadcast_to_rank(deviation, observation.ndim)
        return jnp.clip((observation - center) / spread, -10.0, 10.0)


class Final(nn.Module):
    """The last layer, which is linear."""

    size: int
    initializer: str = "glorot_uniform"
    bound: float | None = None
    """Draw the kernel from U(-bound, bound); None: by `initializer`."""
    draw_bias: bool = False
    """Draw the bias from the same interval, instead of zeros; without a bound it is that of `initializer`."""

    @nn.compact
    def __call__(self, x: jax.Array, axis: int = -1) -> jax.Array:
        kernel_init, bias_init = _initializers(self.initializer, x.shape[axis])
        if self.bound is not None:
            kernel_init = uniform(self.bound)
            bias_init = uniform(self.bound) if self.draw_bias else nn.initializers.zeros_init()
        return Dense(self.size, kernel_init, bias_init)(x, axis)


class Actor(nn.Module):
    """The policy mu(s): observations [..., O] to actions [..., A] between `low` and `high`, A numbers each."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    hidden: Hidden | Residual
    final: Final
    sigmoid: bool = False
    """Bound the output by low + (high - low) sigmoid(x), instead of (low + high) / 2 + (high - low) / 2 tanh(x)."""
    standardize: bool = False
    """Apply `Standardize` to observations."""

    @nn.compact
    def __call__(self, observation: jax.Array, train: bool = False) -> jax.Array:
        if self.standardize:
            observation = Standardize(name="standardize")(observation)
        batch_last = observation.ndim == 2 and self.hidden.is_narrow
        axis = 0 if batch_last else -1
        x = observation.T if batch_last else observation
        if self.hidden.normalization == "batch":
            x = batch_norm(train)(x)
        x = self.final(self.hidden(x, train, axis), axis)
        x = x.T if batch_last else x
        low, high = (jax.lax.broadcast_to_rank(jnp.asarray(bound, x.dtype), x.ndim) for bound in (self.low, self.high))
        if self.sigmoid:
            action = low + nn.sigmoid(x) * (high - low)
        else:
            action = (low + high) / 2 + jnp.tanh(x) * ((high - low) / 2)
        return jnp.clip(action, low, high)  # rounding may carry a saturated action past its bound


class Critic(nn.Module):
    """The action value Q(s, a): observations [..., O] and actions [..., A] to [...], or to [..., M] with M > 1 outputs.

    Both pass through a branch of their own, then through a trunk. With empty branches they are joined at the input;
    with one layer in the observation's branch, the action enters at the second layer (paper, section 7).
    """

    observation_branch: Hidden | Residual
    action_branch: Hidden | Residual
    trunk: Hidden | Residual
    final: Final
    standardize: bool = False
    """Apply `Standardize` to observations."""

    @nn.compact
    def __call__(self, observation: jax.Array, action: jax.Array, train: bool = False) -> jax.Array:
        chex.assert_equal_shape_prefix((observation, action), observation.ndim - 1)
        if self.standardize:
            observation = Standardize(name="standardize")(observation)
        narrow = all(part.is_narrow for part in (self.observation_branch, self.action_branch, self.trunk))
        batch_last = observation.ndim == 2 and narrow
        axis = 0 if batch_last else -1
        x, a = (observation.T, action.T) if batch_last else (observation, action)
        if self.observation_branch.normalization == "batch":
            x = batch_norm(train)(x)
        x = jnp.concatenate([self.observation_branch(x, train, axis), self.action_branch(a, train, axis)], axis)
        output = self.final(self.trunk(x, train, axis), axis)
        return jnp.squeeze(output, axis) if self.final.size == 1 else output.T if batch_last else output
