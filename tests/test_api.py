"""`ddpg_jax.train` gives the command's numbers, accepts any setup, and hyperparameters per agent."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import main
from toy_environments import aim, small_config

import ddpg_jax
from ddpg_jax import compare
from ddpg_jax.results import statistics
from ddpg_jax.results.tables import metrics_csv

CONFIG = small_config(total_steps=60, eval_every=25, eval_episodes=4, max_episode_steps=20)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_training_in_memory_gives_the_bits_of_the_command(tmp_path):
    assert main("--seeds", 3, "--seed", 5, "--out", tmp_path / "run").status == 0
    config = ddpg_jax.PRESETS["pendulum"].replace(  # `command.SMALL`
        hidden_sizes=(8,),
        batch_size=8,
        learning_starts=20,
        replay_capacity=100,
        max_episode_steps=25,
        eval_every=60,
        eval_episodes=64,
        total_steps=200,
    )
    policy, history = ddpg_jax.train(config, num_agents=3, seed=5)
    assert (tmp_path / "run" / "metrics.csv").read_text() == metrics_csv([history])
    of_command = ddpg_jax.load_policy(tmp_path / "run")
    for ours, theirs in zip(leaves(policy.variables), leaves(of_command.variables), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (policy.env_id, policy.num_agents, policy.diverged_agents) == ("Pendulum-v1", 3, ())


def test_curves_are_those_of_the_evaluations():
    _, history = ddpg_jax.train(CONFIG, num_agents=2)
    steps, returns = history.greedy_returns()
    assert steps.tolist() == [25, 50, 60]
    assert returns.shape == (3, 2)
    run = compare.run_of("mine", history, threshold=-300.0)
    np.testing.assert_array_equal(run.returns, returns)
    np.testing.assert_array_equal(run.final, returns[-1])
    assert (run.name, run.env_id, run.num_diverged, run.threshold) == ("mine", "Pendulum-v1", 0, -300.0)


def test_each_agent_may_have_its_own_number():
    hyperparameters = ddpg_jax.make_hyperparameters(CONFIG)
    own = hyperparameters._replace(actor_lr=np.array([1e-2, 1e-4]))
    together, _ = ddpg_jax.train(CONFIG, num_agents=2, hyperparameters=own)
    for agent, actor_lr in enumerate((1e-2, 1e-4)):
        alone, _ = ddpg_jax.train(CONFIG.replace(actor_lr=actor_lr), num_agents=2)
        for one, other in zip(leaves(together.variables), leaves(alone.variables), strict=True):
            np.testing.assert_array_equal(one[agent], other[agent])


def test_agents_that_are_none_or_too_few_for_their_numbers_are_refused():
    with pytest.raises(ValueError, match="num_agents is 0, but must be a whole number >= 1"):
        ddpg_jax.train(CONFIG, num_agents=0)
    three = ddpg_jax.make_hyperparameters(CONFIG)._replace(tau=np.array([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match="broadcast"):
        ddpg_jax.train(CONFIG, num_agents=2, hyperparameters=three)


def not_a_number(value, target):
    return jnp.mean(value) * jnp.nan


def test_setup_takes_the_place_of_the_configurations_own():
    setup = ddpg_jax.make_setup(CONFIG, aim((0.5,), (-1.0,), (1.0,)))
    policy, history = ddpg_jax.train(CONFIG, num_agents=2, setup=setup)
    assert policy.env_id == setup.environment.env_id
    assert np.isfinite(history.greedy_returns()[1]).all()
    broken = replace(setup, algorithm=replace(setup.algorithm, critic_loss=not_a_number))
    policy, history = ddpg_jax.train(CONFIG, num_agents=2, setup=broken)
    assert policy.diverged_agents == (0, 1)
    assert np.isnan(history.greedy_returns()[1]).all()
    assert compare.run_of("broken", history).returns.shape == (3, 0)


@pytest.mark.slow
def test_the_preset_learns_from_python_too():
    _, history = ddpg_jax.train(ddpg_jax.PRESETS["pendulum"], num_agents=4)
    assert statistics.iqm(history.greedy_returns()[1][-1]) > -200.0
