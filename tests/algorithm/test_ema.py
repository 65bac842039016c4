"""Tests the average of the actor's weights: its arithmetic, and that it is evaluated and changes nothing else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import follow, setup_for, small_config

from ddpg_jax.algorithm import ema, evaluation, loop
from ddpg_jax.training.setup_factory import make_hyperparameters


def advanced(config, num_steps):
    """Returns the setup of an agent, and its states before and after each of its steps."""
    setup, hyperparameters = setup_for(config, follow()), make_hyperparameters(config)
    train = jax.jit(partial(loop.train, setup=setup, max_steps=1))
    states = [loop.init(jax.random.key(3), hyperparameters, setup=setup)]
    for _ in range(num_steps):
        states.append(train(states[-1], hyperparameters, 1)[0])
    return setup, [state.agent for state in states]


def flat(variables):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(variables)])


@pytest.fixture(scope="module")
def averaged():
    return advanced(small_config(ema_tau=0.1, actor_lr=0.01, normalize_observations=True), 30)


def test_average_is_that_of_a_plain_loop(averaged):
    _, states = averaged
    expected = flat(states[0].actor["params"])
    for state in states[1:]:
        expected = 0.9 * expected + 0.1 * flat(state.actor["params"])
        np.testing.assert_allclose(flat(state.ema_actor["params"]), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(flat(states[-1].actor["params"]) - expected).max() > 0.01
    # The statistics of observations are those of the actor.
    np.testing.assert_allclose(flat(states[-1].ema_actor["obs_stats"]), flat(states[-1].actor["obs_stats"]), rtol=1e-6)


def test_training_does_not_depend_on_the_average(averaged):
    _, states = advanced(small_config(actor_lr=0.01, normalize_observations=True), 30)
    assert states[-1].ema_actor is None
    assert ema.policy(states[-1]) is states[-1].actor
    without = averaged[1][-1]._replace(ema_actor=None)
    for ours, theirs in zip(jax.tree.leaves(without), jax.tree.leaves(states[-1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_average_is_evaluated_in_the_actors_place(averaged):
    setup, states = averaged
    seen = jnp.linspace(-1.0, 1.0, 7)[:, None]
    state, of_actor = states[-1], states[-1]._replace(ema_actor=None)
    of_average = state._replace(actor=state.ema_actor, ema_actor=None)
    actions = [evaluation.act(each, seen, algorithm=setup.algorithm) for each in (state, of_average, of_actor)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert np.abs(actions[0] - actions[2]).max() > 1e-3


# Parts and hyperparameters that belong together


@pytest.mark.parametrize("field", ["ema_tau", "target_noise", "target_noise_clip", "reward_scale"])
def test_part_without_its_number_is_refused_by_name(field):
    config = small_config(ema_tau=0.1, target_noise=0.2, reward_scale=0.5)
    with pytest.raises(ValueError, match=f"^{field} is None, but must be a number"):
        trace(config, make_hyperparameters(config)._replace(**{field: None}))


def test_number_without_its_average_is_refused():
    with pytest.raises(ValueError, match=r"^ema_tau is given, but must be None, because the setup has no average"):
        trace(small_config(), make_hyperparameters(small_config())._replace(ema_tau=0.1))


def trace(config, hyperparameters):
    setup = setup_for(config, follow())
    state = loop.init(jax.random.key(0), hyperparameters, setup=setup)
    jax.eval_shape(partial(loop.train, setup=setup, max_steps=1), state, hyperparameters, 1)
