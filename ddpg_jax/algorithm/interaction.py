"""A step of an agent in one environment: choose an action (line 8), then take in what it led to (lines 4 to 6, and 10).

Between the two lies line 9, the environment's own step: in the compiled program (`loop.explore`), or outside of it
(`outside.py`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import agent, noise
from ddpg_jax.algorithm.draws import InteractionDraws
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import Episode, Hyperparameters, PRNGKey, TrainState, Transition


class Place(NamedTuple):
    """Where one environment of an agent is."""

    environment: Any
    observation: jax.Array
    noise: jax.Array
    episode: Episode


class Choice(NamedTuple):
    """An action with exploration noise, in the environment's units."""

    executed: jax.Array
    """[A] within the bounds."""
    stored: jax.Array
    """[A] as the replay keeps it."""
    noise: jax.Array
    """[A] the value of the noise."""


class Ended(NamedTuple):
    """The episode after a step of it."""

    ended: jax.Array
    """[] bool: this was its last step."""
    length: jax.Array
    """[] int32: its steps."""
    total_reward: jax.Array
    """[] the sum of their rewards."""


def choose(
    draws: InteractionDraws, place: Place, *, state: TrainState, hyperparameters: Hyperparameters, setup: Setup
) -> Choice:
    """Selects the action a_t = mu(s_t) + N_t (line 8)."""
    exploration, process = setup.exploration, hyperparameters.noise
    noise_value = noise.after(place.noise, draws.shock, process)
    unit = noise.scale(process, episode_of_agent(state, setup)) * jnp.asarray(exploration.noise_unit, jnp.float32)
    greedy = agent.act(state.agent, place.observation, algorithm=setup.algorithm)
    chosen = greedy.astype(jnp.float32) + unit * noise_value
    low, high = (jnp.asarray(bound, jnp.float32) for bound in (setup.environment.low, setup.environment.high))
    if draws.action is not None:
        chosen = jnp.where(state.step < exploration.random_steps, draws.action, chosen)
    executed = jnp.clip(chosen, low, high)
    return Choice(executed, executed if exploration.clip_stored_action else chosen, noise_value)


def conclude(
    place: Place,
    choice: Choice,
    step: Step,
    begin: Callable[[jax.Array], tuple[Any, jax.Array]],
    *,
    hyperparameters: Hyperparameters,
    setup: Setup,
) -> tuple[Place, Transition, Ended]:
    """Takes in what an action led to, and begins the next episode where this one ended (lines 4 to 6).

    Args:
        place: where the environment was.
        choice: the action.
        step: its result.
        begin: whether the episode has ended [] -> the environment's state and observation to go on from, of a new
            episode if it has.
        hyperparameters: of the agent.
        setup: of the agent.

    Returns:
        Where the environment is then, the transition to store (line 10), and the state of the episode.
    """
    exploration, process = setup.exploration, hyperparameters.noise
    length = place.episode.length + 1
    max_steps = min(setup.environment.max_steps, exploration.max_steps or setup.environment.max_steps)
    truncated = (step.truncated | (length >= max_steps)) & ~step.terminated
    ended = step.terminated | truncated
    total_reward = place.episode.total_reward + step.reward

    # Line 10: store the transition; the observation is the one before any reset.
    no_future = ended if exploration.time_limit_terminal else step.terminated
    discount = 1.0 - no_future.astype(jnp.float32)
    seen = _without_nan(step.observation, where=no_future)
    transition = Transition(place.observation, choice.stored, step.reward, discount, seen)

    # Lines 4 to 6: begin the next episode where this one ended.
    environment_state, observation = begin(ended)
    initial = noise.init(process, setup.environment.action_size)
    new = Place(
        environment=environment_state,
        observation=observation,
        noise=jnp.where(ended, initial, choice.noise) if exploration.noise_reset else choice.noise,
        episode=Episode(
            number=place.episode.number + ended.astype(jnp.int32),
            total_reward=jnp.where(ended, 0.0, total_reward),
            length=jnp.where(ended, 0, length),
        ),
    )
    return new, transition, Ended(ended, length, total_reward)


def begin_lazily(
    ended: jax.Array, key: PRNGKey, going_on: tuple[Any, jax.Array], environment: Environment
) -> tuple[Any, jax.Array]:
    """Returns the state and the observation of a new episode where one has ended, those given elsewhere.

    A loop of one round or none, because a reset may cost hundreds of steps: under `vmap` it runs only where an episode
    of the group has ended. (A conditional would run always there.) The key is consumed. It is a part of the carry that
    changes, because XLA moves what does not depend on the carry out of a loop, and would run it always.
    """

    def begin(carry: tuple[jax.Array, jax.Array, Any, jax.Array]) -> tuple[jax.Array, jax.Array, Any, jax.Array]:
        _, key_data, *_ = carry
        return jnp.bool_(False), key_data + 1, *environment.reset(jax.random.wrap_key_data(key_data))

    carry = ended, jax.random.key_data(key), *going_on
    return jax.lax.while_loop(lambda carry: carry[0], begin, carry)[2:]


def _without_nan(observation: jax.Array, where: jax.Array) -> jax.Array:
    """Returns an observation whose numbers count only if they are finite: a terminal one is multiplied by 0."""
    return jnp.where(where & ~jnp.isfinite(observation), 0.0, observation)


def episode_of_agent(state: TrainState, setup: Setup) -> jax.Array:
    """Returns the number of the episode for schedules; of E environments an E-th of the episodes that they ended."""
    number = state.episode.number
    return number if setup.num_envs == 1 else jnp.sum(number) // setup.num_envs
