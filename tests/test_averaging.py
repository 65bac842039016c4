"""Tests the average of the actor's weights: its arithmetic, and that it is evaluated, exported and nothing else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import main
from toy_environments import follow, small_config, trained

import ddpg_jax
from ddpg_jax import evaluate, load_policy
from ddpg_jax.algorithm import averaging, loop, outside
from ddpg_jax.algorithm.evaluation import greedy_episodes
from ddpg_jax.population.assembly import make_hyperparameters, make_setup


def advanced(config, num_steps):
    """The states of an agent after each of its steps."""
    setup, hyperparameters = make_setup(config, follow()), make_hyperparameters(config)
    train = jax.jit(partial(loop.train, setup=setup, max_steps=1))
    states = [loop.init(jax.random.key(3), hyperparameters, setup=setup)]
    for _ in range(num_steps):
        states.append(train(states[-1], hyperparameters, 1)[0])
    return setup, [state.agent for state in states]


def flat(variables):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(variables)])


def test_average_is_that_of_a_plain_loop():
    _, states = advanced(small_config(average_tau=0.1, actor_lr=0.01), 30)
    expected = flat(states[0].actor)
    for state in states[1:]:
        expected = 0.9 * expected + 0.1 * flat(state.actor)
        np.testing.assert_allclose(flat(state.average_actor), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(flat(states[-1].actor) - expected).max() > 0.01


def test_training_does_not_depend_on_the_average():
    config = small_config(normalize_observations=True)
    with_, without = (trained(each, follow(), 40)[1] for each in (config.replace(average_tau=0.1), config))
    assert without.average_actor is None
    for ours, theirs in zip(*(jax.tree.leaves(x._replace(average_actor=None)) for x in (with_, without)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_average_has_the_moments_of_the_actors_observations():
    _, states = advanced(small_config(normalize_observations=True, average_tau=0.1), 20)
    ours, theirs = (jax.tree.leaves(x["moments"]) for x in (states[-1].average_actor, states[-1].actor))
    assert len(ours) == 3
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_average_is_evaluated_in_the_actors_place():
    setup, states = advanced(small_config(average_tau=0.1, actor_lr=0.01), 30)
    state = states[-1]
    parts = {"environment": setup.environment, "algorithm": setup.algorithm}
    starts = setup.environment.evaluation_starts(5)
    of_average = greedy_episodes(state, starts, **parts).returns
    alone = state._replace(actor=state.average_actor, average_actor=None)
    np.testing.assert_array_equal(of_average, greedy_episodes(alone, starts, **parts).returns)
    of_actor = greedy_episodes(state._replace(average_actor=None), starts, **parts).returns
    assert np.abs(of_average - of_actor).max() > 1e-3
    seen = jnp.linspace(-1.0, 1.0, 7)[:, None]
    on_host = [outside.act(each, seen, algorithm=setup.algorithm) for each in (state, alone)]
    np.testing.assert_array_equal(*on_host)


def test_command_and_python_export_the_average(tmp_path, capsys):
    options = ("--total-steps", 60, "--average-tau", 0.05, "--seeds", 2)
    assert main("--out", tmp_path / "run", *options).status == 0
    config = ddpg_jax.runs.policy.policy_config(tmp_path / "run")
    policy, _ = ddpg_jax.train(config, num_agents=2)
    plain, _ = ddpg_jax.train(config.replace(average_tau=1.0), num_agents=2)
    seen = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(load_policy(tmp_path / "run")(seen), policy(seen))
    assert np.abs(np.asarray(policy(seen) - plain(seen))).max() > 1e-3
    assert evaluate.main([str(tmp_path / "run"), "--episodes", "1"]) == 0
    assert "was evaluated with an average of its actor's weights (average_tau 0.05)" in capsys.readouterr().out


def test_policy_without_an_average_is_the_actor():
    _, states = advanced(small_config(), 2)
    assert averaging.policy(states[-1]) is states[-1].actor


# What must be on together


@pytest.mark.parametrize("field", ["average_tau", "target_noise", "target_noise_clip", "reward_scale"])
def test_part_without_its_number_is_refused_by_name(field):
    config = small_config(average_tau=0.1, target_noise=0.2, reward_scale=0.5)
    hyperparameters = make_hyperparameters(config)._replace(**{field: None})
    with pytest.raises(ValueError, match=f"^{field} is None, but must be a number"):
        ddpg_jax.train(config, num_agents=1, setup=make_setup(config, follow()), hyperparameters=hyperparameters)


def test_number_without_its_average_is_refused():
    config = small_config()
    hyperparameters = make_hyperparameters(config)._replace(average_tau=0.1)
    with pytest.raises(ValueError, match=r"^average_tau is given, but the setup has no average"):
        ddpg_jax.train(config, num_agents=1, setup=make_setup(config, follow()), hyperparameters=hyperparameters)
