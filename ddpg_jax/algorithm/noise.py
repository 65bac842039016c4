"""Exploration noise: one AR(1) process describes every form in the sources.

x <- coefficient x + drift + innovation e with standard normal e. Its lag-1 correlation is the coefficient a, its mean
drift / (1 - a), its asymptotic standard deviation innovation / sqrt(1 - a^2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.types import NoiseProcess, PRNGKey


def ornstein_uhlenbeck(*, theta: float, sigma: float, dt: float = 1.0, mean: float = 0.0) -> NoiseProcess:
    """Returns the process x <- x + theta (mean - x) dt + sigma sqrt(dt) e, Uhlenbeck & Ornstein 1930 in Euler's steps.

    The paper (section 7) has theta = 0.15 and sigma = 0.2; the Keras tutorial has dt = 0.01.
    """
    return NoiseProcess(1 - theta * dt, theta * mean * dt, sigma * dt**0.5)


def unaccumulated(*, theta: float, sigma: float, mean: float = 0.0) -> NoiseProcess:
    """Returns the process x <- theta (mean - x) + sigma e: the TensorFlow gist's noise, which does not accumulate."""
    return NoiseProcess(-theta, theta * mean, sigma)


def gaussian(*, sigma: float, mean: float = 0.0) -> NoiseProcess:
    """Returns the process x <- mean + sigma e, whose values are independent of each other."""
    return NoiseProcess(0.0, mean, sigma)


def init(process: NoiseProcess, num_actions: int) -> jax.Array:
    """Returns the first value [A] of the process."""
    return jnp.full((num_actions,), process.initial, jnp.float32)


def step(key: PRNGKey, value: jax.Array, process: NoiseProcess) -> jax.Array:
    """Returns the process's next value [A]. Consumes the key."""
    return after(value, jax.random.normal(key, value.shape, value.dtype), process)


def after(value: jax.Array, shock: jax.Array, process: NoiseProcess) -> jax.Array:
    """Returns the process's next value [A] for standard normal numbers `shock` [A]."""
    return process.coefficient * value + process.drift + process.innovation * shock


def whole(state: jax.Array) -> jax.Array:
    """Returns the value [A] of a noise whose state is its value."""
    return state


class Noise(NamedTuple):
    """A form of noise, as a part of `Exploration`; `process` stands for the numbers `Hyperparameters.noise`."""

    init: Callable[[NoiseProcess, int], Any]
    """(process, A) -> the first state, a tree of arrays."""
    after: Callable[[Any, jax.Array, NoiseProcess], Any]
    """(state, standard normal numbers [A], process) -> the next state."""
    value: Callable[[Any], jax.Array] = whole
    """state -> the value [A] that is scaled and added to the action."""


AR1 = Noise(init, after)
"""The process at the top of this file."""


def scale(process: NoiseProcess, episode: jax.Array) -> jax.Array:
    """Returns the factor [] from the process to the action in an episode, counted from 0: scale decay^episode."""
    return process.scale * process.decay ** episode.astype(jnp.float32)
