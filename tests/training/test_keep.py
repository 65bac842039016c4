"""Tests agents that leave a trainer, and agents that take over what others have learned, here and on the host."""

import jax
import numpy as np
import pytest
from small_runs import SMALL

from ddpg_jax.environments.registry import task_of
from ddpg_jax.training.host_trainer import make_trainer
from ddpg_jax.training.programs import choose_placement, compile_programs
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup
from ddpg_jax.training.trainer import agent_keys


@pytest.fixture(scope="module", params=["Pendulum-v1", "gymnasium:Pendulum-v1"])
def make(request):
    """Returns a function that makes 5 agents with their own learning rates, in blocks of 2."""
    config = SMALL.replace(env_id=request.param, num_envs=2, replay_capacity=400)
    task, count = task_of(config), 5
    setup = make_setup(config, task.environment)
    values = jax.tree.map(lambda x: np.full(count, x, np.float32), make_hyperparameters(config))
    values = values._replace(actor_lr=np.arange(1, count + 1, dtype=np.float32) / 1000)
    where = choose_placement(count, devices=1, group_size=2, on_host=True)
    starts = task.evaluation_starts(4)
    programs = compile_programs(setup, where, starts=starts, hyperparameters=jax.tree.structure(values))
    keys = agent_keys(0, np.arange(count))
    return lambda: (make_trainer(setup, keys, values, starts=starts, placement=where, programs=programs), starts)


def advance(trainer):
    """Trains for 120 steps, in 2 environments per agent; returns the critic's losses [N, 60]."""
    return trainer.advance(60).critic_loss


def test_agents_that_stay_have_the_bits_of_a_trainer_that_nobody_leaves(make):
    stays = np.array([4, 1, 2])
    trainer, starts = make()
    advance(trainer)
    trainer.keep(stays)
    assert trainer.num_agents == 3
    whole, _ = make()
    advance(whole)
    assert (advance(trainer) == advance(whole)[stays]).all()
    assert (trainer.evaluate(starts).returns == whole.evaluate(starts).returns[stays]).all()
    np.testing.assert_array_equal(trainer.hyperparameters.actor_lr, np.float32([0.005, 0.002, 0.003]))
    for now, before in zip(jax.tree.leaves(trainer.variables(lambda agent: agent)),
                           jax.tree.leaves(whole.variables(lambda agent: agent)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(now, before[stays] if before.ndim else before)


def test_a_copy_has_the_networks_and_the_replay_of_its_source_and_its_own_randomness(make):
    trainer, starts = make()
    advance(trainer)
    before = trainer.evaluate(starts).returns
    trainer.copy(np.array([3, 1, 2, 3, 4]))
    returns = trainer.evaluate(starts).returns
    assert (returns[[0, 3]] == before[3]).all()
    assert (returns[[1, 2, 4]] == before[[1, 2, 4]]).all()
    steps = [trainer.transitions(index, 80, 120) for index in (0, 3)]
    np.testing.assert_array_equal(steps[0].reward, steps[1].reward)
    losses = advance(trainer)
    new = [trainer.transitions(index, 180, 240) for index in (0, 3)]
    assert (np.asarray(new[0].action) != np.asarray(new[1].action)).any()
    untouched, _ = make()
    advance(untouched)
    assert (advance(untouched)[[1, 2, 3, 4]] == losses[[1, 2, 3, 4]]).all()


def test_environments_of_an_agent_fill_its_replay_in_turn(make):
    trainer, _ = make()
    trainer.advance(10)
    transitions = trainer.transitions(0, 0, 20)
    assert len(np.unique(transitions.observation[:, 2])) == 20
    np.testing.assert_array_equal(transitions.next_observation[:18], transitions.observation[2:])


def test_hyperparameters_can_be_changed_between_chunks(make):
    trainer, _ = make()
    advance(trainer)
    before = trainer.variables(lambda agent: agent.actor["params"])
    zero = np.zeros(5, np.float32)
    trainer.hyperparameters = trainer.hyperparameters._replace(actor_lr=zero)
    advance(trainer)
    after = trainer.variables(lambda agent: agent.actor["params"])
    assert all((old == new).all() for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
