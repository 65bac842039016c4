"""Greedy episodes, without exploration noise, from given start states."""

from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.types import AgentState


def greedy_returns(
    state: AgentState, starts: tuple[Any, jax.Array], *, environment: Environment, algorithm: Algorithm
) -> jax.Array:
    """Returns the undiscounted returns [S] of one greedy episode from each of S start states.

    Args:
        state: an agent.
        starts: environment states and observations with a leading axis S, as `Environment.evaluation_starts` returns.
        environment: the task; a random one is given the same keys for every agent.
        algorithm: the one with which `state` was made.
    """
    num = starts[1].shape[0]
    low, high = (jnp.asarray(bound, jnp.float32)[None] for bound in (environment.low, environment.high))

    def step(t: jax.Array, carry: tuple[Any, jax.Array, jax.Array, jax.Array]) -> tuple:
        states, observation, alive, total = carry
        action = agent.act(state, observation, algorithm=algorithm).astype(jnp.float32)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), t), num)
        states, result = jax.vmap(environment.step)(keys, states, jnp.clip(action, low, high))
        total = total + jnp.where(alive, result.reward, 0.0)
        return states, result.observation, alive & ~(result.terminated | result.truncated), total

    carry = (*starts, jnp.ones(num, bool), jnp.zeros(num, jnp.float32))
    return jax.lax.fori_loop(0, environment.max_steps, step, carry)[-1]
