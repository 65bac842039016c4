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
from ddpg_jax.algorithm.types import EnvState, Episode, EpisodeStats, Hyperparameters, PRNGKey, TrainState, Transition


class ActionSample(NamedTuple):
    """An action with exploration noise, in the environment's units."""

    executed: jax.Array
    """[A] the action within the bounds."""
    stored: jax.Array
    """[A] the action as the replay stores it."""
    noise: jax.Array
    """[A] the value of the noise process."""


def sample_action(
    randomness: InteractionRandomness, env: EnvState, state: TrainState, hyperparameters: Hyperparameters, setup: Setup
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

    `env` is the environment before the action. `begin_if` maps whether the episode has ended to the state and the
    observation to continue from: those of a new episode if it has, otherwise those after the step.
    """
    exploration = setup.exploration
    length = env.episode.length + 1
    max_steps = min(setup.environment.max_steps, exploration.max_steps or setup.environment.max_steps)
    truncated = (result.truncated | (length >= max_steps)) & ~result.terminated
    ended = result.terminated | truncated
    total_reward = env.episode.total_reward + result.reward

    # Line 10: the transition to store; its observation is the one before any reset.
    no_future = ended if exploration.time_limit_terminal else result.terminated
    discount = 1.0 - no_future.astype(jnp.float32)
    # The target multiplies the value of a terminal state by 0, but 0 times NaN is NaN.
    next_observation = jnp.where(no_future & ~jnp.isfinite(result.observation), 0.0, result.observation)
    transition = Transition(env.observation, action.stored, result.reward, discount, next_observation)

    # Lines 4 to 6: begin the next episode if this one has ended.
    env_state, observation = begin_if(ended)
    first_noise = noise.init(hyperparameters.noise, setup.environment.action_size)
    next_noise = jnp.where(ended, first_noise, action.noise) if exploration.noise_reset else action.noise
    number = env.episode.number + ended.astype(jnp.int32)
    episode = Episode(number, jnp.where(ended, 0.0, total_reward), jnp.where(ended, 0, length))
    after = EnvState(env_state, observation, next_noise, episode)
    return after, transition, EpisodeStats(jnp.where(ended, length, 0), total_reward)


def reset_if(
    ended: jax.Array, key: PRNGKey, after_step: tuple[Any, jax.Array], environment: Environment
) -> tuple[Any, jax.Array]:
    """Returns the state and the observation of a new episode if one has ended, else those after the step.

    This is a loop of at most one round, because a reset may cost as much as hundreds of steps: under `vmap` the loop
    runs only if an episode of the group has ended, whereas both branches of a `cond` would always run. The key (which
    is consumed) changes in the carry, because XLA would move a reset that depends on no carry out of the loop.
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
