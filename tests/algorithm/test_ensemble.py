"""Tests ensembles of critics: their weights and outputs, and which distribution is the target's.

The smallest value in the target, and the critic that the actor follows, are in the parity test of TD3.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import small_config

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.categorical import categorical
from ddpg_jax.algorithm.ensemble import of_ensemble
from ddpg_jax.training.setup_factory import make_algorithm

KEY = jax.random.key(0)


def test_critics_have_weights_of_their_own_and_compute_what_each_computes_alone():
    config = small_config(hidden_sizes=(20,))
    algorithm, single = (make_algorithm(config.replace(num_critics=n), (-1.0, 0.0), (3.0, 0.5)) for n in (3, 1))
    state = agent.init(KEY, jnp.zeros(3), algorithm=algorithm)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.critic["params"]):
        assert leaf.shape[0] == 3
        if path[-1].key == "kernel":
            assert not np.array_equal(leaf[0], leaf[1])
            assert not np.array_equal(leaf[1], leaf[2])
    observation, action = jax.random.normal(KEY, (5, 3)), jax.random.normal(KEY, (5, 2))
    together = algorithm.critic.apply(state.critic, observation, action)
    for k in range(3):
        params = jax.tree.map(lambda leaf, k=k: leaf[k], state.critic["params"]["critic"])
        alone = single.critic.apply({"params": params}, observation, action)
        np.testing.assert_allclose(together[:, k], alone, rtol=1e-5)


def test_categorical_ensemble_uses_the_whole_distribution_of_the_smaller_mean():
    form = of_ensemble(categorical(3, 0.0, 2.0))
    low, high = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.log(jnp.array([0.1, 0.2, 0.7]))
    output = jnp.stack([jnp.stack([high, low], axis=-1), jnp.stack([low, high], axis=-1)])  # [B, M, K]
    zeros, ones = jnp.zeros(2), jnp.ones(2)
    np.testing.assert_allclose(form.td_target(zeros, ones, output, gamma=1.0), [[0.7, 0.2, 0.1]] * 2, atol=1e-6)
    np.testing.assert_allclose(form.action_value(output), [0.2 + 1.4, 0.2 + 0.2], atol=1e-6)
    # A reward of 1 moves the largest atom, which has a probability of 0.1 in the smaller distribution, beyond 2.
    assert float(form.clipped_share(ones, ones, output, gamma=1.0)) == pytest.approx(0.1)
