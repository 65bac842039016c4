"""The three formulas of DDPG: arrays in, arrays out. Each is one line of the paper's Algorithm 1."""

import chex
import jax
import jax.numpy as jnp


def td_target(reward: jax.Array, discount: jax.Array, next_value: jax.Array, *, gamma: jax.Array | float) -> jax.Array:
    """Y = r + gamma d Q'(s', mu'(s')): the value to which the critic is drawn.

    Args:
        reward: [B].
        discount: [B], 0 where s' is terminal, else 1.
        next_value: [B], the target critic's value of the target actor's action.
        gamma: the discount factor, in [0, 1].

    Returns:
        [B].

    Reference: Lillicrap et al. 2015, Algorithm 1 (https://arxiv.org/abs/1509.02971), whose y has no terminal states.
    """
    chex.assert_rank([reward, discount, next_value], 1)
    chex.assert_equal_shape([reward, discount, next_value])
    return reward + gamma * discount * next_value


def critic_loss(value: jax.Array, target: jax.Array) -> jax.Array:
    """L = 1/B sum_i (y_i - Q(s_i, a_i))^2 of values [B] and targets [B], which are constants to its gradient."""
    chex.assert_rank([value, target], 1)
    chex.assert_equal_shape([value, target])
    return jnp.mean(jnp.square(jax.lax.stop_gradient(target) - value))


def actor_loss(value: jax.Array) -> jax.Array:
    """-1/B sum_i Q(s_i, mu(s_i)) of values [B]: by the chain rule its gradient is minus the policy gradient."""
    chex.assert_rank(value, 1)
    return -jnp.mean(value)
