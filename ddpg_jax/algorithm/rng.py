"""The random numbers of a training step, which depend only on the agent's key and the number of the step.

So the numbers of many steps can be drawn together, before the loop makes the steps, without a change of a bit. (Drawn
inside the loop, each step would launch dozens of small operations that cost more than the numbers themselves.)
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import PRNGKey, TrainState, is_key


class InteractionRandomness(NamedTuple):
    """The random numbers of a step in one environment; [E, ...] for E > 1 environments."""

    shock: jax.Array
    """[A] standard normal, for the exploration noise."""
    action: jax.Array | None
    """[A] a uniformly random action within the bounds; None if training does not begin with random actions."""
    step_key: PRNGKey
    """For the environment's step."""
    reset_key: PRNGKey
    """For the environment's next episode."""


class UpdateRandomness(NamedTuple):
    """The random numbers of an update."""

    rows: jax.Array
    """[B] int32: the rows of the replay at which the minibatch's transitions begin (line 11)."""
    key: PRNGKey
    """For `agent.update`."""


class StepRandomness(NamedTuple):
    """The random numbers of a step, with its updates."""

    interaction: InteractionRandomness
    """For acting."""
    updates_key: PRNGKey
    """For the updates; each folds in its number."""
    update: UpdateRandomness | None
    """For the only update, if every step has exactly one; otherwise None."""


def sample_step_randomness(state: TrainState, num_steps: int, *, setup: Setup) -> StepRandomness:
    """Returns the random numbers [num_steps, ...] of an agent's next steps. Does not consume the state's key."""
    ahead = jnp.arange(num_steps, dtype=jnp.int32)
    steps = state.step + ahead
    size = replay.size_after(state.replay, (ahead + 1) * setup.num_envs)
    # Before the first update no row is read, and there may be fewer rows than a minibatch without replacement needs.
    size = jnp.where(steps < setup.first_update - 1, setup.replay_capacity, size)
    return jax.vmap(partial(_of_step, setup=setup), in_axes=(None, 0, 0))(state.key, steps, size)


def at(randomness: StepRandomness, index: jax.Array | int) -> StepRandomness:
    """Returns the random numbers of one step out of those of several [num_steps, ...]."""

    def take(numbers: jax.Array) -> jax.Array:
        if not is_key(numbers):
            return numbers[index]
        # Indexed as data: JAX's checks would count keys that are indexed in each round of a loop as used again.
        return jax.random.wrap_key_data(jax.random.key_data(numbers)[index])

    return jax.tree.map(take, randomness)


def of_next_step(state: TrainState, *, setup: Setup) -> StepRandomness:
    """Returns the random numbers of an agent's next step. Does not consume the state's key."""
    return at(sample_step_randomness(state, 1, setup=setup), 0)


def of_update(randomness: StepRandomness, number: jax.Array, state: TrainState, *, setup: Setup) -> UpdateRandomness:
    """Returns the random numbers of a step's update, counted from 0; `state` has stored the step's transitions."""
    if randomness.update is not None:
        return randomness.update
    return _of_update(randomness.updates_key, number, replay.size_after(state.replay, 0), setup)


def _of_step(key: PRNGKey, step: jax.Array, size: jax.Array, *, setup: Setup) -> StepRandomness:
    """Returns the numbers of a step, whose key is the agent's with its number folded in; updates read `size` rows."""
    interaction_key, updates_key = jax.random.split(jax.random.fold_in(key, step))
    of_one = partial(_of_interaction, setup=setup)
    if setup.num_envs > 1:
        interaction = jax.vmap(of_one)(jax.random.split(interaction_key, setup.num_envs))
    else:
        interaction = of_one(interaction_key)
    update = _of_update(updates_key, 0, size, setup) if setup.updates_once_per_step else None
    return StepRandomness(interaction, updates_key, update)


def _of_interaction(key: PRNGKey, *, setup: Setup) -> InteractionRandomness:
    """Returns the numbers of a step in one environment; consumes the key."""
    shock_key, action_key, step_key, reset_key = jax.random.split(key, 4)
    low, high = (jnp.asarray(bound, jnp.float32) for bound in (setup.environment.low, setup.environment.high))
    action = None
    if setup.exploration.random_steps:
        action = jax.random.uniform(action_key, low.shape, jnp.float32, low, high)
    return InteractionRandomness(jax.random.normal(shock_key, low.shape, jnp.float32), action, step_key, reset_key)


def _of_update(key: PRNGKey, number: jax.Array | int, size: jax.Array, setup: Setup) -> UpdateRandomness:
    """Returns the numbers of an update, whose key is that of the step's updates with its number folded in."""
    rows_key, update_key = jax.random.split(jax.random.fold_in(key, number))
    return UpdateRandomness(setup.sampler(rows_key, setup.batch_size, size), update_key)
