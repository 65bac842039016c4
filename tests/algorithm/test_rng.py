"""Tests the random numbers of training steps: which they are, that none occurs twice, and how they may be drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import counter, setup_for, small_config

from ddpg_jax.algorithm import loop, rng
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import TrainState
from ddpg_jax.training.setup_factory import make_hyperparameters

COUNTER = counter(length=3)
sample_step_randomness = jax.jit(rng.sample_step_randomness, static_argnums=1, static_argnames="setup")
of_next_step = jax.jit(rng.of_next_step, static_argnames="setup")
of_update = jax.jit(rng.of_update, static_argnames="setup")
SWITCHES = [
    {},
    {"random_steps": 4, "num_envs": 3, "replay_capacity": 60, "total_steps": 300, "eval_every": 30},
    {"sample_with_replacement": False, "batch_size": 5},
    {"train_every": 2, "updates_per_train": 3},
]


def made(*, step: int = 0, **changes) -> tuple[TrainState, Setup]:
    """Returns an agent that seems to have made some steps, and its setup."""
    config = small_config(**changes)
    setup = setup_for(config, COUNTER)
    return at(step, loop.init(jax.random.key(0), make_hyperparameters(config), setup=setup), setup), setup


def at(step: int, state: TrainState, setup: Setup) -> TrainState:
    """Returns an agent that seems to have made this many steps."""
    added = jnp.int32(step * setup.num_envs)
    return state._replace(step=jnp.int32(step), replay=state.replay._replace(added=added))


def numbers(tree) -> list[np.ndarray]:
    """Returns the arrays of a tree, with keys as their data."""
    leaves = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in leaves]


@pytest.mark.parametrize("changes", SWITCHES)
def test_steps_drawn_together_have_the_numbers_of_each_step(changes):
    start, setup = made(step=7, **changes)
    together = sample_step_randomness(start, 10, setup=setup)
    several = [x for x in numbers(together) if x.dtype != np.int32]
    assert all(len(np.unique(x, axis=0)) == 10 for x in several)  # each step has numbers of its own
    for ahead in (0, 1, 9):
        alone = of_next_step(at(7 + ahead, start, setup), setup=setup)
        for many, one in zip(numbers(together), numbers(alone), strict=True):
            np.testing.assert_array_equal(many[ahead], one)


@pytest.mark.parametrize("with_replacement", [True, False])
def test_minibatch_has_rows_of_the_replay_up_to_that_of_the_step(with_replacement):
    start, setup = made(step=0, learning_starts=20, sample_with_replacement=with_replacement)
    rows = np.asarray(sample_step_randomness(start, 4_000, setup=setup).update.rows)
    stored = np.minimum(np.arange(1, 4_001), 50)[:, None]
    learns = np.arange(4_000) >= 19
    assert np.all(rows >= 0)
    assert np.all(rows[learns] < stored[learns])
    assert np.any(rows[19:49] == stored[19:49] - 1)  # the transition of the step itself can be chosen
    assert set(rows[50:].ravel()) == set(range(50))


def test_updates_of_a_step_differ_and_the_first_is_that_of_a_step_with_one():
    several, several_setup = made(step=30, updates_per_train=3)
    drawn = of_next_step(several, setup=several_setup)
    after = several._replace(replay=several.replay._replace(added=several.replay.added + 1))
    updates = [of_update(drawn, jnp.int32(i), after, setup=several_setup) for i in range(3)]
    assert len({update.rows.tobytes() for update in map(jax.device_get, updates)}) > 1
    assert len({numbers(update.key)[0].tobytes() for update in updates}) == 3

    single, single_setup = made(step=30)
    once = of_next_step(single, setup=single_setup)
    for one, other in zip(numbers(once.update), numbers(updates[0]), strict=True):
        np.testing.assert_array_equal(one, other)
