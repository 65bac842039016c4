"""Algorithm 1 where the environment steps on the host: its results go into the compiled program, actions come out.

Between two calls the next action has been chosen and waits in the training state. The order of operations for an agent
is that of `loop.train`: act, execute, store, learn.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import agent, averaging, draws, noise
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import HostSteps, Step
from ddpg_jax.algorithm.interaction import Choice, Ended, Place, choose, conclude, episode_of_agent
from ddpg_jax.algorithm.loop import decayed, learn_again, outcome_of, over_envs, place_of, stored, to_row
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, PRNGKey, TrainState, Transition


class Pending(NamedTuple):
    """The state of an environment on the host, as far as the compiled program knows it."""

    seed: jax.Array
    """[] uint32: of the environment's random numbers."""
    choice: Choice
    """The action that is to be executed next."""


def reset(key: PRNGKey, *, observation_size: int, action_size: int) -> tuple[Pending, jax.Array]:
    """Returns an environment's state before it has been reset on the host, with an observation of zeros."""
    zeros = jnp.zeros(action_size, jnp.float32)
    return Pending(jax.random.bits(key, (), jnp.uint32), Choice(zeros, zeros, zeros)), jnp.zeros(observation_size)


def begin(
    state: TrainState, observation: jax.Array, hyperparameters: Hyperparameters, *, setup: Setup
) -> tuple[TrainState, jax.Array]:
    """Begins new episodes from the observation [O], or [E, O] (lines 4 to 6), and chooses the first action.

    Returns:
        The state, and the action [E, A].
    """
    begun = jax.tree.map(jnp.zeros_like, state.episode)
    state = state._replace(
        observation=observation,
        episode=begun._replace(number=state.episode.number),
        noise=_initial_noise(state, hyperparameters) if setup.exploration.noise_reset else state.noise,
    )
    return _choose(state, hyperparameters, setup)


def step(
    state: TrainState, received: jax.Array, hyperparameters: Hyperparameters, *, setup: Setup
) -> tuple[TrainState, jax.Array, jax.Array]:
    """Stores the result of the action that was waiting, learns, and chooses the next (lines 8 to 15).

    Args:
        state: an agent, with its action.
        received: [E, 2 O + 3] what `pack` made of the environments' results.
        hyperparameters: of the agent.
        setup: of the agent.

    Returns:
        The state, the next action [E, A], and the row of the log (`loop.unpack_log`).
    """
    now = decayed(hyperparameters, episode_of_agent(state, setup))
    received = received[0] if setup.num_envs == 1 else received
    take = partial(_take, hyperparameters=hyperparameters, setup=setup)
    place, transition, ended = over_envs(take, setup)(place_of(state), received)
    learns = state.step >= setup.first_update - 1
    drawn = draws.of_next_step(state, setup=setup)
    state = stored(state, place, transition, setup)
    state, info = learn_again(state, drawn, now, setup=setup, learns=learns)
    state, action = _choose(state, hyperparameters, setup)
    return state, action, to_row(outcome_of(ended), info)


def act(state: AgentState, observations: jax.Array, *, algorithm: Algorithm) -> jax.Array:
    """Returns the greedy actions [S, A] float32 for observations [S, O], within their bounds.

    Where the agent has an average of its actor, that acts.
    """
    state = state._replace(actor=averaging.policy(state))
    actions = agent.act(state, observations, algorithm=algorithm).astype(jnp.float32)
    low, high = (jnp.asarray(bound, jnp.float32)[None] for bound in (algorithm.actor.low, algorithm.actor.high))
    return jnp.clip(actions, low, high)


def pack(results: HostSteps) -> np.ndarray:
    """Returns the results of n environments as one array [n, 2 O + 3] float32: one transfer to the device."""
    step = results.step
    numbers = np.stack([step.reward, step.terminated, step.truncated], axis=1, dtype=np.float32)
    return np.concatenate([step.observation, results.observation, numbers], axis=1, dtype=np.float32)


def _choose(state: TrainState, hyperparameters: Hyperparameters, setup: Setup) -> tuple[TrainState, jax.Array]:
    """Chooses the next action (line 8), which waits in the state; returns it, too, as [E, A]."""
    state = state._replace(agent=setup.exploration.observe(state.agent, state.observation))
    select = partial(choose, state=state, hyperparameters=hyperparameters, setup=setup)
    choice = over_envs(select, setup)(draws.of_next_step(state, setup=setup).interaction, place_of(state))
    state = state._replace(environment=state.environment._replace(choice=choice))
    return state, choice.executed.reshape(setup.num_envs, -1)


def _take(
    place: Place, received: jax.Array, *, hyperparameters: Hyperparameters, setup: Setup
) -> tuple[Place, Transition, Ended]:
    """Takes in the result [2 O + 3] of the action that was waiting in one environment."""
    size = setup.environment.observation_size
    observation, start, (reward, terminated, truncated) = jnp.split(received, [size, 2 * size])
    result = Step(observation, reward, terminated != 0, truncated != 0)

    def begin(ended: jax.Array) -> tuple[Any, jax.Array]:
        return place.environment, start  # the host has begun the next episode where this one ended

    return conclude(place, place.environment.choice, result, begin, hyperparameters=hyperparameters, setup=setup)


def _initial_noise(state: TrainState, hyperparameters: Hyperparameters) -> jax.Array:
    return jnp.broadcast_to(noise.init(hyperparameters.noise, state.noise.shape[-1]), state.noise.shape)
