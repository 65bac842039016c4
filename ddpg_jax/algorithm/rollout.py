"""Agents in environments: one exploring step into the replay, and greedy episodes for evaluation."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import agent, noise, replay
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.types import AgentState, Episode, NoiseProcess, PRNGKey, TrainState, Transition


@dataclass(frozen=True)
class Exploration:
    """How an agent gathers experience, apart from the noise's coefficients."""

    noise_unit: tuple[float, ...]
    """What a noise of 1 adds to each of the A actions, in the environment's units."""
    noise_reset: bool = False
    """Start the noise anew in every episode (line 4), instead of letting it run on."""
    clip_stored_action: bool = True
    """Store the action as executed, instead of before it was clipped to the bounds."""
    max_steps: int | None = None
    """A time limit below the environment's own, or None."""
    time_limit_terminal: bool = False
    """Store a time limit as a terminal state."""


class Outcome(NamedTuple):
    """What a step did to its episode."""

    episode_length: jax.Array
    """[] int32: steps of the episode that it ended; 0 if it ended none."""
    episode_return: jax.Array
    """[] rewards of that episode, up to and with this step."""


def begin(key: PRNGKey, environment: Environment, process: NoiseProcess) -> tuple[Any, jax.Array, jax.Array, Episode]:
    """The first episode: the environment's state, its observation [O], the noise [A] and the counters."""
    state, observation = environment.reset(key)
    counters = Episode(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    return state, observation, noise.init(process, environment.action_size), counters


def explore(
    state: TrainState,
    *,
    environment: Environment,
    algorithm: Algorithm,
    exploration: Exploration,
    process: NoiseProcess,
) -> tuple[TrainState, Outcome]:
    """Lines 8 to 10: act with noise, execute, store; and lines 4 to 6 where an episode ended. Replaces the key."""
    key, noise_key, step_key, reset_key = jax.random.split(state.key, 4)

    # Line 8: select action a_t = mu(s_t) + N_t.
    noise_value = noise.step(noise_key, state.noise, process)
    unit = noise.scale(process, state.episode.number) * jnp.asarray(exploration.noise_unit)
    greedy = agent.act(state.agent, state.observation, algorithm=algorithm)
    chosen = greedy.astype(jnp.float32) + unit * noise_value
    executed = jnp.clip(chosen, jnp.asarray(environment.low), jnp.asarray(environment.high))

    # Line 9: execute a_t, observe reward r_t and new state s_{t+1}.
    environment_state, step = environment.step(step_key, state.environment, executed)
    length = state.episode.length + 1
    max_steps = min(environment.max_steps, exploration.max_steps or environment.max_steps)
    truncated = (step.truncated | (length >= max_steps)) & ~step.terminated
    ended = step.terminated | truncated
    total_reward = state.episode.total_reward + step.reward

    # Line 10: store the transition; the observation is the one before any reset.
    no_future = ended if exploration.time_limit_terminal else step.terminated
    stored = executed if exploration.clip_stored_action else chosen
    transition = Transition(state.observation, stored, step.reward, 1.0 - no_future, step.observation)

    # Lines 4 to 6: begin the next episode where this one ended.
    fresh = (*environment.reset(reset_key), noise.init(process, environment.action_size))
    going_on = (environment_state, step.observation, noise_value)
    environment_state, observation, fresh_noise = jax.tree.map(lambda a, b: jnp.where(ended, a, b), fresh, going_on)
    new = state._replace(
        replay=replay.add(state.replay, transition),
        noise=fresh_noise if exploration.noise_reset else noise_value,
        environment=environment_state,
        observation=observation,
        episode=Episode(
            number=state.episode.number + ended,
            total_reward=jnp.where(ended, 0.0, total_reward),
            length=jnp.where(ended, 0, length),
        ),
        key=key,
        step=state.step + 1,
    )
    return new, Outcome(jnp.where(ended, length, 0), total_reward)


def greedy_returns(
    state: AgentState, starts: tuple[Any, jax.Array], *, environment: Environment, algorithm: Algorithm
) -> jax.Array:
    """Undiscounted returns [S] of one episode without noise from each of S start states.

    Args:
        state: an agent.
        starts: environment states and observations with a leading axis S, as `Environment.evaluation_starts` gives.
        environment: where it acts; a random one gets the same keys for every agent.
        algorithm: the one that `state` was made with.
    """
    num = starts[1].shape[0]
    low, high = jnp.asarray(environment.low), jnp.asarray(environment.high)

    def step(t: jax.Array, carry: tuple[Any, jax.Array, jax.Array, jax.Array]) -> tuple:
        states, observation, alive, total = carry
        action = agent.act(state, observation, algorithm=algorithm).astype(jnp.float32)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), t), num)
        states, result = jax.vmap(environment.step)(keys, states, jnp.clip(action, low, high))
        total = total + jnp.where(alive, result.reward, 0.0)
        return states, result.observation, alive & ~(result.terminated | result.truncated), total

    carry = (*starts, jnp.ones(num, bool), jnp.zeros(num, jnp.float32))
    return jax.lax.fori_loop(0, environment.max_steps, step, carry)[-1]
