"""The three formulas of DDPG as functions of arrays. Each is a line of the paper's Algorithm 1."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.types import Scalar


def td_target(reward: jax.Array, discount: jax.Array, next_value: jax.Array, *, gamma: Scalar) -> jax.Array:
    """Computes y = r + gamma d Q'(s', mu'(s')) [B] from r [B], d [B] (0 where s' is terminal, else 1) and Q' [B].

    Lillicrap et al. 2015, Algorithm 1 (https://arxiv.org/abs/1509.02971), whose y has no terminal states.
    """
    chex.assert_rank([reward, discount, next_value], 1)
    chex.assert_equal_shape([reward, discount, next_value])
    return reward + gamma * discount * next_value


def critic_loss(value: jax.Array, target: jax.Array) -> jax.Array:
    """Computes L = 1/B sum_i (y_i - Q(s_i, a_i))^2 from values [B] and targets [B], without a gradient of y."""
    chex.assert_rank([value, target], 1)
    chex.assert_equal_shape([value, target])
    return jnp.mean(jnp.square(jax.lax.stop_gradient(target) - value))


def actor_loss(value: jax.Array) -> jax.Array:
    """Computes -1/B sum_i Q(s_i, mu(s_i)) from values [B]; its gradient is minus the policy gradient."""
    chex.assert_rank(value, 1)
    return -jnp.mean(value)


def action_value(value: jax.Array) -> jax.Array:
    """Returns Q(s, a) [B], which is a plain critic's output."""
    return value


class CriticForm(NamedTuple):
    """What a critic's output [B, ...] means: functions of arrays, which are also fields of `Algorithm`."""

    td_target: Callable[..., jax.Array] = td_target
    """(reward [B], discount [B], next output, gamma as a keyword) -> the target."""
    critic_loss: Callable[[jax.Array, jax.Array], jax.Array] = critic_loss
    """(output, target) -> the critic's loss []."""
    actor_loss: Callable[[jax.Array], jax.Array] = actor_loss
    """(output for the actor's actions) -> the actor's loss []."""
    action_value: Callable[[jax.Array], jax.Array] = action_value
    """(output) -> the values Q(s, a) [B]."""
    clipped_share: Callable[..., jax.Array] | None = None
    """(arguments of `td_target`) -> the fraction [] of the target's probability outside the support; None: always 0."""
