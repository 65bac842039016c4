"""Sums of several rewards before the target bootstraps, read from the replay of single steps.

Watkins 1989; with DDPG in D4PG, Barth-Maron et al. 2018, section 3 (https://arxiv.org/abs/1804.08617).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.types import Hyperparameters, Replay, Transition


@dataclass(frozen=True)
class NStep:
    """Reads windows of up to n rows of the replay, each as one transition.

    A window ends early at a terminal state, at a time limit, and at the newest row. Consecutive rows belong to one
    episode if the next row's observation equals this row's next observation. So a window continues where an episode
    begins with the very observation with which the one before was cut off; its sum is that of a path as well.
    """

    num_steps: int
    """n."""
    num_envs: int = 1
    """E: consecutive rows of one environment are E rows apart."""

    def __call__(
        self, ring: Replay, indices: jax.Array, action_size: int, hyperparameters: Hyperparameters
    ) -> Transition:
        """Returns the windows [B] that begin at the rows `indices` [B].

        Over the m <= n steps of a window, `reward` is the sum of gamma^k r_k, `discount` is gamma^(m-1) times the last
        discount, so that a target multiplies the next value by gamma^m, and `next_observation` is the last one.
        """
        capacity = ring.rows.shape[0]
        gamma = jnp.asarray(hyperparameters.gamma, ring.rows.dtype)
        num_newer = (ring.added - 1 - indices) % capacity // self.num_envs
        first = replay.read(ring, indices, action_size)
        _, _, reward, discount, observation = first
        going_on, weight = jnp.ones(indices.shape, bool), jnp.ones_like(reward)
        for k in range(1, self.num_steps):
            following = replay.read(ring, (indices + k * self.num_envs) % capacity, action_size)
            same_episode = jnp.all(following.observation == observation, axis=-1) & (discount != 0)
            going_on = going_on & same_episode & (k <= num_newer)
            weight = jnp.where(going_on, gamma * weight, weight)
            reward = reward + jnp.where(going_on, weight * following.reward, 0.0)
            discount = jnp.where(going_on, following.discount, discount)
            observation = jnp.where(going_on[:, None], following.next_observation, observation)
        return first._replace(reward=reward, discount=weight * discount, next_observation=observation)
