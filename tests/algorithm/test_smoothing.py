"""Tests the noise on the target's action: its distribution, its units, and the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from toy_environments import small_config

from ddpg_jax.algorithm.smoothing import smooth
from ddpg_jax.training.setup_factory import make_hyperparameters

LOW, HIGH = (-1.0, 0.0), (3.0, 0.5)
KEY = jax.random.key(0)


def test_noise_is_normal_clipped_and_in_units_of_half_the_range():
    hyperparameters = make_hyperparameters(small_config(target_noise=0.2, target_noise_clip=0.3))
    middle = jnp.broadcast_to(jnp.array([1.0, 0.25]), (20_000, 2))
    noise = (np.asarray(smooth(KEY, middle, LOW, HIGH, hyperparameters)) - [1.0, 0.25]) / [2.0, 0.25]
    assert abs(noise).max() == pytest.approx(0.3, rel=1e-5)
    for column in noise.T:
        inside = column[abs(column) < 0.2999]
        assert scipy.stats.kstest(inside, scipy.stats.truncnorm(-1.5, 1.5, scale=0.2).cdf).pvalue > 1e-3
        assert (abs(column) >= 0.2999).mean() == pytest.approx(2 * scipy.stats.norm.sf(1.5), abs=0.01)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03
    edge = np.asarray(smooth(KEY, jnp.broadcast_to(jnp.array([3.0, 0.0]), (1000, 2)), LOW, HIGH, hyperparameters))
    assert edge[:, 0].max() == 3.0
    assert edge[:, 1].min() == 0.0
