"""One step of an agent in one environment: sample an action (line 8), then process its result (lines 4 to 6, and 10).

Between the two, the environment steps (line 9): in the compiled program (`loop.py`) or on the host (`host_env.py`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import agent, noise
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.rng import InteractionRandomness
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import (
    EnvState,
    Episode,
    EpisodeStats,
    Hyperparameters,
    PRNGKey,
    TrainState,
    Transition,
)


class ActionSample(NamedTuple):
    """An action with exploration noise, in the environment's units."""

    executed: jax.Array
    """[A] the action within the bounds."""
    stored: jax.Array
    """[A] the action as the replay stores it."""
    noise: jax.Array
    """[A] the value of the noise process."""


def sample_action(
    randomness: InteractionRandomness,
    env: EnvState,
    *,
    state: TrainState,
    hyperparameters: Hyperparameters,
    setup: Setup,
) -> ActionSample:
    """Selects the action a_t = mu(s_t) + N_t (line 8) in one of the agent's environments."""
    exploration, process = setup.exploration, hyperparameters.noise
    noise_value = noise.after(env.noise, randomness.shock, process)
    unit = noise.scale(process, episode_number(state, setup)) * jnp.asarray(exploration.noise_unit, jnp.float32)
    greedy = agent.act(state.agent, env.observation, algorithm=setup.algorithm)
    action = greedy.astype(jnp.float32) + unit * noise_value
    low, high = (jnp.asarray(bound, jnp.float32) for bound in (setup.environment.low, setup.environment.high))
    if randomness.action is not None:
        action = jnp.where(state.step < exploration.random_steps, randomness.action, action)
    executed = jnp.clip(action, low, high)
    return ActionSample(executed, executed if exploration.clip_stored_action else action, noise_value)


def process_step(
    env: EnvState,
    action: ActionSample,
    result: Step,
    begin_if: Callable[[jax.Array], tuple[Any, jax.Array]],
    *,
    hyperparameters: Hyperparameters,
    setup: Setup,
) -> tuple[EnvState, Transition, EpisodeStats]:
    """Processes the result of an action, and begins the next episode if this one has ended (lines 4 to 6).

    Args:
        env: the environment before the action.
        action: the action.
        result: what it led to.
        begin_if: (has the episode ended? []) -> the environment's state and observation to continue from: those of a
            new episode if it has, otherwise those after the step.
        hyperparameters: the agent's.
        setup: the agent's.

    Returns:
        The environment after the step, the transition to store (line 10), and what happened to the episode.
    """
    exploration, process = setup.exploration, hyperparameters.noise
    length = env.episode.length + 1
    max_steps = min(setup.environment.max_steps, exploration.max_steps or setup.environment.max_steps)
    truncated = (result.truncated | (length >= max_steps)) & ~result.terminated
    ended = result.terminated | truncated
    total_reward = env.episode.total_reward + result.reward

    # Line 10: the transition to store; its observation is the one before any reset.
    no_future = ended if exploration.time_limit_terminal else result.terminated
    discount = 1.0 - no_future.astype(jnp.float32)
    next_observation = _finite_if(no_future, result.observation)
    transition = Transition(env.observation, action.stored, result.reward, discount, next_observation)

    # Lines 4 to 6: begin the next episode if this one has ended.
    env_state, observation = begin_if(ended)
    first_noise = noise.init(process, setup.environment.action_size)
    after = EnvState(
        state=env_state,
        observation=observation,
        noise=jnp.where(ended, first_noise, action.noise) if exploration.noise_reset else action.noise,
        episode=Episode(
            number=env.episode.number + ended.astype(jnp.int32),
            total_reward=jnp.where(ended, 0.0, total_reward),
            length=jnp.where(ended, 0, length),
        ),
    )
    return after, transition, EpisodeStats(jnp.where(ended, length, 0), total_reward)


def reset_if(
    ended: jax.Array, key: PRNGKey, after_step: tuple[Any, jax.Array], environment: Environment
) -> tuple[Any, jax.Array]:
    """Returns the state and the observation of a new episode if one has ended, otherwise those after the step.

    This is a loop of at most one round, because a reset may cost as much as hundreds of steps: under `vmap` the loop
    runs only if an episode of the group has ended, whereas both branches of a `cond` would always run. The key, which
    is consumed, is part of the carry and changes in it, because XLA would move a reset that does not depend on the
    carry out of the loop, and always run it.
    """

    def reset(carry: tuple[jax.Array, jax.Array, Any, jax.Array]) -> tuple[jax.Array, jax.Array, Any, jax.Array]:
        _, key_data, *_ = carry
        return jnp.bool_(False), key_data + 1, *environment.reset(jax.random.wrap_key_data(key_data))

    carry = ended, jax.random.key_data(key), *after_step
    return jax.lax.while_loop(lambda carry: carry[0], reset, carry)[2:]


def episode_number(state: TrainState, setup: Setup) -> jax.Array:
    """Returns the number of episodes before the current one, for schedules; with E environments, their mean."""
    number = state.env.episode.number
    return number if setup.num_envs == 1 else jnp.sum(number) // setup.num_envs


def _finite_if(terminal: jax.Array, observation: jax.Array) -> jax.Array:
    """Returns the observation with 0 for numbers that are not finite in a terminal state, whose value is not used.

    (The target multiplies that value by 0, but 0 times NaN is NaN.)
    """
    return jnp.where(terminal & ~jnp.isfinite(observation), 0.0, observation)
