"""Compares the statistics of observations with NumPy's, and tests where they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import counter, explored, small_config

from ddpg_jax.algorithm import agent, obs_normalization
from ddpg_jax.algorithm.networks import Standardize
from ddpg_jax.training.setup_factory import make_algorithm

LOW, HIGH = (-1.0, 0.0), (3.0, 0.5)


def test_statistics_are_numpys_in_all_networks_and_standardise_observations():
    config = small_config(normalize_observations=True, num_critics=2)
    algorithm, plain = (make_algorithm(c, LOW, HIGH) for c in (config, config.replace(normalize_observations=False)))
    state = agent.init(jax.random.key(0), jnp.zeros(3), algorithm=algorithm)
    seen = np.random.default_rng(0).normal([1.0, -20.0, 300.0], [1.0, 0.1, 50.0], (5000, 3)).astype(np.float32)
    one_by_one = jax.lax.fori_loop(0, len(seen), lambda i, s: obs_normalization.update(s, jnp.asarray(seen)[i]), state)
    state = jax.jit(obs_normalization.update)(state, jnp.asarray(seen))
    found = state.actor["obs_stats"]["standardize"]
    assert float(found["count"]) == 5000
    np.testing.assert_allclose(found["mean"], seen.mean(0, dtype=np.float64), rtol=1e-4)
    np.testing.assert_allclose(found["variance"], seen.var(0, dtype=np.float64), rtol=2e-3)
    for variables in (state.critic, state.target_actor, state.target_critic, one_by_one.actor):
        leaves = jax.tree.leaves(variables["obs_stats"])
        for leaf, expected in zip(leaves, jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-6)
    standardised = (seen[:5] - seen.mean(0)) / seen.std(0)
    ours = agent.act(state, seen[:5], algorithm=algorithm)
    bare = state._replace(actor={"params": state.actor["params"]})
    np.testing.assert_allclose(ours, agent.act(bare, standardised, algorithm=plain), rtol=1e-3, atol=1e-3)


def test_loop_adds_the_observations_that_the_agent_acts_on():
    _, state, _ = explored(small_config(normalize_observations=True), counter(length=4), 8)
    found = state.agent.actor["obs_stats"]["standardize"]
    assert float(found["count"]) == 8
    assert float(found["mean"][0]) == pytest.approx(np.mean([0, 1, 2, 3] * 2))
    assert float(found["variance"][0]) == pytest.approx(np.var([0, 1, 2, 3] * 2))


@pytest.mark.parametrize(("updates", "counted"), [(0, 1500), (1, 1000)])
def test_statistics_stay_after_the_first_update_and_a_thousand_observations(updates, counted):
    algorithm = make_algorithm(small_config(normalize_observations=True), LOW, HIGH)
    state = agent.init(jax.random.key(0), jnp.zeros(3), algorithm=algorithm)._replace(step=jnp.int32(updates))
    seen = np.random.default_rng(0).normal(5.0, 2.0, (1500, 3)).astype(np.float32)
    found = jax.jit(obs_normalization.update)(state, jnp.asarray(seen)).actor["obs_stats"]["standardize"]
    assert float(found["count"]) == counted
    np.testing.assert_allclose(found["mean"], seen[:counted].mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(found["variance"], seen[:counted].var(0, dtype=np.float64), rtol=1e-3)


def test_feature_that_has_not_varied_is_only_centred_and_others_are_clipped():
    stats = {"mean": jnp.array([7.0, 0.0]), "variance": jnp.array([0.0, 0.25]), "count": jnp.array(9.0)}
    found = Standardize().apply({"obs_stats": stats}, jnp.array([[7.5, 1.0], [7.0, 100.0]]))
    np.testing.assert_allclose(found, [[0.5, 2.0], [0.0, 10.0]], rtol=1e-6)
