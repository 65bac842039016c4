"""The random numbers of a training step, each a function of the agent's key and of the number of the step.

So those of many steps can be drawn at once, before the loop makes the steps. A draw within the loop would launch dozens
of small operations, which take longer than the numbers themselves. How many steps are drawn at once changes no bit.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import PRNGKey, TrainState, is_key


class InteractionDraws(NamedTuple):
    """What a step in one environment needs; [E, ...] for E > 1 environments."""

    shock: jax.Array
    """[A] standard normal: of the exploration noise."""
    action: jax.Array | None
    """[A] uniform within the bounds: a random action; None where training begins without them."""
    step_key: PRNGKey
    """For the environment's step."""
    reset_key: PRNGKey
    """For its next episode."""


class UpdateDraws(NamedTuple):
    """What an update needs."""

    rows: jax.Array
    """[B] int32: the rows of the replay at which the transitions of its minibatch begin (line 11)."""
    key: PRNGKey
    """For `agent.update`."""


class StepDraws(NamedTuple):
    """What a step needs, with its updates."""

    interaction: InteractionDraws
    learning_key: PRNGKey
    """For the updates, with the number of each folded in."""
    update: UpdateDraws | None
    """Those of its update, where every step has exactly one."""


def of_next_step(state: TrainState, *, setup: Setup) -> StepDraws:
    """Returns the random numbers of the step that an agent makes next."""
    return at(of_next_steps(state, 1, setup=setup), 0)


def of_next_steps(state: TrainState, num: int, *, setup: Setup) -> StepDraws:
    """Returns the random numbers [num, ...] of the steps that an agent makes next. The state's key stays as it is."""
    ahead = jnp.arange(num, dtype=jnp.int32)
    steps = state.step + ahead
    size = replay.size_after(state.replay, (ahead + 1) * setup.num_envs)
    # Nothing is read before the first update, when there may be fewer rows than a minibatch without replacement needs.
    size = jnp.where(steps < setup.first_update - 1, setup.replay_capacity, size)
    return jax.vmap(partial(_of_step, setup=setup), in_axes=(None, 0, 0))(state.key, steps, size)


def at(drawn: StepDraws, index: jax.Array | int) -> StepDraws:
    """Returns the random numbers of one of several steps [num, ...]."""

    def one_of(numbers: jax.Array) -> jax.Array:
        if not is_key(numbers):
            return numbers[index]
        # As data: taken from the keys themselves in each round of a loop, JAX's checks would count them as used again.
        return jax.random.wrap_key_data(jax.random.key_data(numbers)[index])

    return jax.tree.map(one_of, drawn)


def of_update(draws: StepDraws, number: jax.Array, state: TrainState, *, setup: Setup) -> UpdateDraws:
    """Returns the random numbers of an update of a step, counted from 0; `state` has stored the step's transitions."""
    if draws.update is not None:
        return draws.update
    return _of_update(draws.learning_key, number, replay.size_after(state.replay, 0), setup)


def _of_step(key: PRNGKey, step: jax.Array, size: jax.Array, *, setup: Setup) -> StepDraws:
    """Returns the random numbers of a step, whose updates choose among `size` rows.

    The agent's key is not consumed: each step has a key of its own, the agent's with the step's number folded in.
    """
    interaction_key, learning_key = jax.random.split(jax.random.fold_in(key, step))
    interaction = partial(_of_interaction, setup=setup)
    if setup.num_envs > 1:
        interaction_of_all = jax.vmap(interaction)(jax.random.split(interaction_key, setup.num_envs))
    else:
        interaction_of_all = interaction(interaction_key)
    update = _of_update(learning_key, 0, size, setup) if setup.updates_once_per_step else None
    return StepDraws(interaction_of_all, learning_key, update)


def _of_interaction(key: PRNGKey, *, setup: Setup) -> InteractionDraws:
    """Returns the random numbers of a step in one environment; the key is consumed."""
    shock_key, action_key, step_key, reset_key = jax.random.split(key, 4)
    low, high = (jnp.asarray(bound, jnp.float32) for bound in (setup.environment.low, setup.environment.high))
    action = None
    if setup.exploration.random_steps:
        action = jax.random.uniform(action_key, low.shape, jnp.float32, low, high)
    return InteractionDraws(jax.random.normal(shock_key, low.shape, jnp.float32), action, step_key, reset_key)


def _of_update(key: PRNGKey, number: jax.Array | int, size: jax.Array, setup: Setup) -> UpdateDraws:
    """Returns the random numbers of an update, whose key is that of the step's updates with its number folded in."""
    rows_key, update_key = jax.random.split(jax.random.fold_in(key, number))
    return UpdateDraws(setup.sampler(rows_key, setup.batch_size, size), update_key)
