"""Greedy episodes, without exploration noise, from given start states."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import agent, averaging
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.types import AgentState


class GreedyEpisodes(NamedTuple):
    """What greedy episodes from S start states have come to; under `vmap` over N agents, arrays [N, S]."""

    returns: Any
    """[S] the undiscounted returns."""
    share_at_bounds: Any
    """[S] the share of the actions, over steps and components, that were a bound of the action space."""


def greedy_episodes(
    state: AgentState, starts: tuple[Any, jax.Array], *, environment: Environment, algorithm: Algorithm
) -> GreedyEpisodes:
    """Runs one greedy episode from each of S start states.

    Args:
        state: an agent; where it has an average of its actor, that acts.
        starts: environment states and observations with a leading axis S, as `Environment.evaluation_starts` returns.
        environment: the task; a random one is given the same keys for every agent.
        algorithm: the one with which `state` was made.
    """
    num, state = starts[1].shape[0], state._replace(actor=averaging.policy(state))
    low, high = (jnp.asarray(bound, jnp.float32)[None] for bound in (environment.low, environment.high))

    def going_on(carry: tuple[jax.Array, Any, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        t, _, _, alive, *_ = carry
        return (t < environment.max_steps) & jnp.any(alive)

    def step(carry: tuple[jax.Array, Any, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]) -> tuple:
        t, states, observation, alive, total, length, at_bounds = carry
        action = agent.act(state, observation, algorithm=algorithm).astype(jnp.float32)
        action = jnp.clip(action, low, high)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), t), num)
        states, result = jax.vmap(environment.step)(keys, states, action)
        total = total + jnp.where(alive, result.reward, 0.0)
        share = jnp.mean((action == low) | (action == high), axis=-1, dtype=jnp.float32)
        at_bounds = at_bounds + jnp.where(alive, share, 0.0)
        length = length + alive.astype(jnp.float32)
        alive = alive & ~(result.terminated | result.truncated)
        return t + 1, states, result.observation, alive, total, length, at_bounds

    zeros = jnp.zeros(num, jnp.float32)
    carry = (jnp.int32(0), *starts, jnp.ones(num, bool), zeros, zeros, zeros)
    *_, total, length, at_bounds = jax.lax.while_loop(going_on, step, carry)
    return GreedyEpisodes(total, at_bounds / length)
