"""Greedy episodes, without exploration noise, from given start states."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import agent, ema
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.types import AgentState


class Starts(NamedTuple):
    """S start states of episodes, which agents share."""

    state: Any
    """[S, ...] the states of the environment, a tree of arrays."""
    observation: jax.Array
    """[S, O] their observations."""
    key: jax.Array
    """[S] the source of each episode's random numbers: step t uses the key with t folded in."""


class GreedyEpisodes(NamedTuple):
    """The results of greedy episodes from S start states; for N agents, arrays [N, S]."""

    returns: Any
    """[S] the undiscounted returns."""
    share_at_bounds: Any
    """[S] the fraction of the actions, over steps and components, that were at a bound."""


def act(state: AgentState, observations: jax.Array, *, algorithm: Algorithm) -> jax.Array:
    """Returns greedy actions [S, A] float32 for observations [S, O]; if there is an average of the actor, it acts."""
    state = state._replace(actor=ema.policy(state))
    actions = agent.act(state, observations, algorithm=algorithm).astype(jnp.float32)
    low, high = (jnp.asarray(bound, jnp.float32)[None] for bound in (algorithm.actor.low, algorithm.actor.high))
    return jnp.clip(actions, low, high)


class _Progress(NamedTuple):
    """S episodes after t steps; `alive` marks those that have not ended."""

    t: jax.Array
    state: Any
    observation: jax.Array
    alive: jax.Array
    total_reward: jax.Array
    length: jax.Array
    at_bounds: jax.Array


def greedy_episodes(
    state: AgentState, starts: Starts, *, environment: Environment, algorithm: Algorithm
) -> GreedyEpisodes:
    """Runs one greedy episode from each of S start states; if the agent has an average of its actor, it acts.

    An episode depends on its start and its key (not consumed), not on the other episodes or on how many there are.
    """
    low, high = (jnp.asarray(bound, jnp.float32)[None] for bound in (environment.low, environment.high))

    def is_running(now: _Progress) -> jax.Array:
        return (now.t < environment.max_steps) & jnp.any(now.alive)

    def step(now: _Progress) -> _Progress:
        action = act(state, now.observation, algorithm=algorithm)
        keys = jax.vmap(jax.random.fold_in, (0, None))(starts.key, now.t)
        env_state, result = jax.vmap(environment.step)(keys, now.state, action)
        at_bounds = jnp.mean((action == low) | (action == high), axis=-1, dtype=jnp.float32)
        return _Progress(
            t=now.t + 1,
            state=env_state,
            observation=result.observation,
            alive=now.alive & ~(result.terminated | result.truncated),
            total_reward=now.total_reward + jnp.where(now.alive, result.reward, 0.0),
            length=now.length + now.alive.astype(jnp.float32),
            at_bounds=now.at_bounds + jnp.where(now.alive, at_bounds, 0.0),
        )

    num = len(starts.observation)
    zeros = jnp.zeros(num, jnp.float32)
    begun = _Progress(jnp.int32(0), starts.state, starts.observation, jnp.ones(num, bool), zeros, zeros, zeros)
    end = jax.lax.while_loop(is_running, step, begun)
    return GreedyEpisodes(end.total_reward, end.at_bounds / end.length)
