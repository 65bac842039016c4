"""Tests the plan of a run: memory, waves and time."""

import dataclasses
import re
from unittest import mock

import jax
import numpy as np
import pytest

from ddpg_jax.algorithm import loop
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.programs import Placement, train_state_shapes
from ddpg_jax.runs import plan
from ddpg_jax.runs.estimates import update_flops

MiB = 2**20


def planned(config, num_agents, available, group_size=2, environment=None):
    setup = make_setup(config, environment or make("Pendulum-v1"))
    placement = Placement((jax.devices()[0],), group_size)
    with mock.patch.object(plan, "available_memory", return_value=available):
        return plan.plan_part(config, setup, [placement], range(num_agents))


def test_agents_are_planned_with_their_replay_and_their_parameters():
    """A replay row of Pendulum has 9 float32."""
    config = Config(replay_capacity=5_000, hidden_sizes=(8,))
    found = planned(config, 4, 100 * MiB)
    state = loop.init(jax.random.key(0), make_hyperparameters(config), setup=make_setup(config, make("Pendulum-v1")))
    parameters = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(state.agent))
    assert found.agent_bytes == parameters + 5_000 * 36 + 4


@pytest.mark.parametrize(("num_critics", "passes"), [(1, 6), (3, 18)])
def test_operations_of_all_critics_are_counted(num_critics, passes):
    """Pendulum has 3 observations and 1 action: kernels 3 x 8 and 8 x 1, of a critic 4 x 8 and 8 x 1."""
    setup = make_setup(Config(hidden_sizes=(8,), num_critics=num_critics), make("Pendulum-v1"))
    agent = train_state_shapes(setup).agent
    assert update_flops(agent, 10) == 2 * 10 * (4 * 32 + passes * 40)


@pytest.mark.parametrize(("num_agents", "available"), [(1, 40), (7, 40), (100, 40), (1_000, 200)])
def test_waves_hold_all_agents_in_order_and_fit(num_agents, available):
    found = planned(Config(total_steps=1_000), num_agents, available * MiB)
    assert [agent for wave in found.waves for agent in wave] == list(range(num_agents))
    assert found.wave_bytes <= available * MiB
    assert all(len(wave) % 2 == 0 for wave in found.waves[:-1])
    if len(found.waves) > 1:
        assert (found.wave_size + 2) * found.agent_bytes > available * MiB


@pytest.mark.parametrize("total_steps", [2_000, 1_000_000])
def test_capacity_that_is_said_to_fit_does(total_steps):
    config = Config(total_steps=total_steps, replay_capacity=10_000_000, eval_every=1_000)
    with pytest.raises(ValueError, match=r"a replay_capacity of [0-9,]+ would fit") as refusal:
        planned(config, 4, 50 * MiB)
    rows = int(re.search("a replay_capacity of ([0-9,]+) would fit", str(refusal.value))[1].replace(",", ""))
    assert planned(config.replace(replay_capacity=rows - 1), 4, 50 * MiB).waves
    with pytest.raises(ValueError, match="would fit"):
        planned(config.replace(replay_capacity=rows + 100), 4, 50 * MiB)


def test_nothing_fits_into_next_to_nothing():
    with pytest.raises(ValueError, match="no replay would fit"):
        planned(Config(), 4, 1_000)


def test_time_of_a_simulator_is_said_to_be_left_out():
    own = dataclasses.replace(make("Pendulum-v1"), env_id="my_package:my_pendulum")
    assert planned(Config(), 4, 100 * MiB).lines()[-1].endswith("of training (an estimate)")
    assert planned(Config(), 4, 100 * MiB, environment=own).lines()[-1].endswith("without the simulator's own time)")
