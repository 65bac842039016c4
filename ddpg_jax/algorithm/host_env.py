"""Algorithm 1 with environments on the host: their results go into the compiled program, and actions come out.

Between two calls, the next action waits in the training state. Each agent's operations have the order of `loop.train`:
act, execute, store, learn.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import loop, rng
from ddpg_jax.algorithm.environment import Step
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import EnvState, EpisodeStats, Hyperparameters, PRNGKey, TrainState, Transition


class PendingAction(NamedTuple):
    """What the compiled program knows of an environment on the host; `EnvState.noise` has the action's noise."""

    seed: jax.Array
    """[] uint32: the seed of the environment's random numbers."""
    executed: jax.Array
    """[A] the action to execute next."""
    stored: jax.Array
    """[A] the same as the replay will store it."""


def reset(key: PRNGKey, *, observation_size: int, action_size: int) -> tuple[PendingAction, jax.Array]:
    """Returns an environment's state before its first reset on the host, and zeros [O]. Consumes the key."""
    zeros = jnp.zeros(action_size, jnp.float32)
    seed = jax.random.bits(key, (), jnp.uint32)
    return PendingAction(seed, zeros, zeros), jnp.zeros(observation_size)


def begin(
    state: TrainState, observation: jax.Array, hyperparameters: Hyperparameters, *, setup: Setup
) -> tuple[TrainState, jax.Array]:
    """Begins episodes from the observation [O] or [E, O] (lines 4 to 6); returns the first action [E, A] too."""
    env = state.env
    zeros = jax.tree.map(jnp.zeros_like, env.episode)
    next_noise = env.noise
    if setup.exploration.noise_reset:
        first_noise = setup.exploration.noise.init(hyperparameters.noise, setup.environment.action_size)
        next_noise = jax.tree.map(lambda x, old: jnp.broadcast_to(x, old.shape), first_noise, env.noise)
    env = env._replace(
        observation=observation,
        noise=next_noise,
        episode=zeros._replace(number=env.episode.number),
    )
    return _sample_next_action(state._replace(env=env), hyperparameters, setup)


def step(
    state: TrainState, received: jax.Array, hyperparameters: Hyperparameters, *, setup: Setup
) -> tuple[TrainState, jax.Array, jax.Array]:
    """Stores the results of the pending action (`received`, [E, 2 O + 3] from `pack`), learns and acts (lines 8 to 15).

    Returns the state, the next action [E, A], and the row of the log (`loop.unpack_log`).
    """

    def receive(env: EnvState, received: jax.Array) -> tuple[EnvState, Transition, EpisodeStats]:
        size = setup.environment.observation_size
        observation, next_start, (reward, terminated, truncated) = jnp.split(received, [size, 2 * size])
        result = Step(observation, reward, terminated != 0, truncated != 0)

        begun = env.state, next_start  # the host has begun the next episode if this one has ended
        action = loop.ActionSample(env.state.executed, env.state.stored, env.noise)
        return loop.process_step(env, action, result, lambda ended: begun, hyperparameters, setup)

    now = loop.decay_learning_rates(hyperparameters, loop.episode_number(state, setup))
    received = received[0] if setup.num_envs == 1 else received
    env, transition, stats = loop.over_envs(receive, setup)(state.env, received)
    learns = state.step >= setup.first_update - 1
    randomness = rng.of_next_step(state, setup=setup)
    state = loop.store(state, env, transition, setup)
    state, info = loop.update_agent(state, randomness, now, setup, learns=learns)
    state, action = _sample_next_action(state, hyperparameters, setup)
    return state, action, loop.to_row(stats, info)


def pack(results: Step, observations: np.ndarray) -> np.ndarray:
    """Returns NumPy results [n, ...] as one array [n, 2 O + 3] float32, for a single transfer to the device.

    `observations` [n, O] are those to continue from: those of the results, or of a new episode if one has ended.
    """
    numbers = np.stack([results.reward, results.terminated, results.truncated], axis=1, dtype=np.float32)
    return np.concatenate([results.observation, observations, numbers], axis=1, dtype=np.float32)


def _sample_next_action(
    state: TrainState, hyperparameters: Hyperparameters, setup: Setup
) -> tuple[TrainState, jax.Array]:
    """Returns the state with the next action pending (line 8), and that action [E, A]."""
    state = state._replace(agent=setup.exploration.observe(state.agent, state.env.observation))

    sample = partial(loop.sample_action, state=state, hyperparameters=hyperparameters, setup=setup)
    action = loop.over_envs(sample, setup)(rng.of_next_step(state, setup=setup).interaction, state.env)
    pending = state.env.state._replace(executed=action.executed, stored=action.stored)
    env = state.env._replace(state=pending, noise=action.noise)
    return state._replace(env=env), action.executed.reshape(setup.num_envs, -1)
