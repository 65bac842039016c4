"""Compares the categorical critic with the paper's projection, and tests its losses and its clipped targets by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_environments import counter, setup_for, small_config

from ddpg_jax.algorithm import agent, loop
from ddpg_jax.algorithm.categorical import categorical, project
from ddpg_jax.algorithm.types import Transition
from ddpg_jax.training.setup_factory import make_hyperparameters

KEY = jax.random.key(0)


def projected(probabilities, returns, atoms):
    """Bellemare et al. 2017, Algorithm 1, as it is printed."""
    step, out = atoms[1] - atoms[0], np.zeros_like(atoms)
    for p, value in zip(probabilities, returns, strict=True):
        b = min((min(max(value, atoms[0]), atoms[-1]) - atoms[0]) / step, len(atoms) - 1)
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            out[lower] += p
        else:
            out[lower] += p * (upper - b)
            out[upper] += p * (b - lower)
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 11]), st.floats(-3.0, 3.0), st.floats(0.0, 1.2))
def test_projection_is_that_of_the_paper_and_keeps_the_mass_and_the_mean_inside(seed, num_atoms, reward, gamma):
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.ones(num_atoms))
    atoms = np.linspace(-2.0, 1.0, num_atoms)
    returns = reward + gamma * atoms
    inputs = (jnp.asarray(x, jnp.float32)[None] for x in (probabilities, returns))
    ours = np.asarray(project(*inputs, jnp.asarray(atoms)))[0]
    np.testing.assert_allclose(ours, projected(probabilities, returns, atoms), atol=2e-5)
    assert ours.sum() == pytest.approx(1.0, abs=1e-5)
    if returns.min() >= -2.0 and returns.max() <= 1.0:
        assert ours @ atoms == pytest.approx(probabilities @ returns, abs=1e-4)


def test_losses_are_cross_entropy_and_mean():
    form = categorical(3, -1.0, 1.0)
    probabilities = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    logits, target = jnp.log(jnp.asarray(probabilities)), jnp.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    expected = -(np.log(0.2) + 0.5 * np.log(0.3) + 0.5 * np.log(0.1)) / 2
    assert float(form.critic_loss(logits, target)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(form.action_value(logits), [0.3, -0.5], atol=1e-6)
    assert float(form.actor_loss(logits)) == pytest.approx(0.1, abs=1e-6)
    terminal = form.td_target(jnp.array([0.5, 9.0]), jnp.zeros(2), logits, gamma=0.9)
    np.testing.assert_allclose(terminal, [[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("value_max", "reward", "discount", "gamma", "share"),
    [
        (1.0, 0.0, 1.0, 1.0, 0.0),  # returns -1, 0, 1: the outermost atoms are inside
        (1.0, 0.5, 1.0, 1.0, 0.5),  # -0.5, 0.5, 1.5
        (1.0, -1.5, 1.0, 1.0, 0.5),  # -2.5, -1.5, -0.5
        (1.0, 7.0, 0.0, 1.0, 1.0),  # a terminal state, whose return is the reward
        (30.0, 30 * (1 - 0.98), 1.0, 0.98, 0.0),  # the largest atom again; in float32 it comes out 2e-6 larger
    ],
)
def test_clipped_share_is_the_probability_of_returns_beyond_the_outermost_atoms(
    value_max, reward, discount, gamma, share
):
    logits = jnp.log(jnp.array([[0.2, 0.3, 0.5]]))
    inputs = (jnp.array([x]) for x in (reward, discount))
    found = categorical(3, -1.0, value_max).clipped_share(*inputs, logits, gamma=gamma)
    assert float(found) == pytest.approx(share, abs=1e-6)


def test_update_and_log_report_the_mean_of_the_minibatch():
    """In an environment with a reward of 1, in episodes of two steps, every second transition is terminal."""
    config = small_config(critic_atoms=2, value_min=0.0, value_max=0.5, gamma=0.5, updates_per_train=2)
    setup, hyperparameters = setup_for(config, counter(length=2, terminates=True)), make_hyperparameters(config)
    state = loop.init(KEY, hyperparameters, setup=setup)
    _, log = jax.jit(partial(loop.train, setup=setup, max_steps=5))(state, hyperparameters, jnp.int32(4))
    log = loop.unpack_log(np.asarray(log)[None])
    np.testing.assert_array_equal(log.clipped_targets, [[2.0, 2.0, 2.0, 2.0, 0.0]])  # returns of at least 1, twice
    rewards = jnp.array([1.0, 0.0])
    batch = Transition(jnp.zeros((2, 1)), jnp.zeros((2, 1)), rewards, jnp.zeros(2), jnp.zeros((2, 1)))
    update = {"algorithm": setup.algorithm, "hyperparameters": hyperparameters}
    _, info = agent.update(KEY, state.agent, batch, **update)
    assert float(info.clipped_targets) == 0.5
