"""Tests setups: how many updates they make, and how their parts are replaced."""

import pytest
from toy_environments import counter, setup_for, small_config

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.n_step import NStep
from ddpg_jax.algorithm.networks import Actor, Final, Hidden
from ddpg_jax.algorithm.setup import Setup, with_parts

SETUP = setup_for(small_config(), counter())


def updates_of_a_plain_loop(setup: Setup, env_steps: int) -> int:
    """Counts the updates step by step: the steps 1, 1 + train_every, … train once `first_update` is reached."""
    updates = 0
    for step in range(1, env_steps // setup.num_envs + 1):
        if step >= setup.first_update and (step - 1) % setup.train_every == 0:
            updates += setup.updates_per_train
    return updates


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(("train_every", "updates_per_train"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("first_update", [1, 7, 8])
def test_number_of_updates_is_that_of_a_plain_loop(num_envs, train_every, updates_per_train, first_update):
    changes = {"num_envs": num_envs, "train_every": train_every, "updates_per_train": updates_per_train}
    setup = with_parts(SETUP, first_update=first_update, replay_capacity=48, **changes)
    for env_steps in range(0, 120, num_envs):
        assert setup.num_updates(env_steps) == updates_of_a_plain_loop(setup, env_steps)


def test_parts_of_the_setup_its_algorithm_and_its_exploration_are_replaced_by_name():
    actor = Actor((-10.0,), (10.0,), Hidden((3,)), Final(1))
    new = with_parts(SETUP, actor=actor, sampler=replay.without_replacement, noise_unit=(2.0,))
    found = new.algorithm.actor, new.sampler, new.exploration.noise_unit
    assert found == (actor, replay.without_replacement, (2.0,))
    assert new.algorithm.critic == SETUP.algorithm.critic
    restored = with_parts(new, actor=SETUP.algorithm.actor, sampler=SETUP.sampler, exploration=SETUP.exploration)
    assert restored == SETUP != new


def test_unknown_part_is_refused_by_name_with_the_parts_there_are():
    with pytest.raises(TypeError, match=r"^actr is not a part of a setup; the parts are environment, .*actor"):
        with_parts(SETUP, actr=None)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"num_envs": 4}, "replay_capacity is 50, but must be a multiple of num_envs, 4"),
        ({"num_envs": 2, "reader": NStep(5)}, "num_envs of the reader is 1, but must be that of the setup, 2"),
        ({"reader": replay.Rescaled(NStep(5, 2))}, "num_envs of the reader is 2, but must be that of the setup, 1"),
    ],
)
def test_parts_that_would_mix_environments_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        with_parts(SETUP, **parts)


def test_equal_configurations_make_equal_setups():
    again = setup_for(small_config(), SETUP.environment)
    assert again == SETUP
    assert hash(again) == hash(SETUP)
