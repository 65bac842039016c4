"""Tests exploration noise: each source's process by hand, its steps, its scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ddpg_jax.algorithm import noise
from ddpg_jax.algorithm.types import NoiseProcess
from ddpg_jax.config import Config
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_noise


# coefficient, drift and innovation by hand from the sources' equations; initial value, scale and decay
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PRESETS["keras"].replace(noise_mean=2.0), (1 - 0.15 * 0.01, 0.15 * 2 * 0.01, 0.2 * 0.1, 0.0, 1.0, 1.0)),
        (PRESETS["gist"].replace(noise_mean=2.0), (-0.15, 0.15 * 2, 0.2, 0.0, 0.1, 0.99)),
        (PRESETS["gist_corrected"], (0.85, 0.0, 0.2, 0.0, 0.1, 0.99)),
        (PRESETS["paper"], (0.85, 0.0, 0.2, 0.0, 1.0, 1.0)),
        (
            Config(noise="gaussian", noise_sigma=0.3, noise_mean=0.5, noise_initial=0.1, noise_scale=2.0),
            (0.0, 0.5, 0.3, 0.1, 2.0, 1.0),
        ),
    ],
)
def test_configuration_names_the_process(config, expected):
    np.testing.assert_allclose(make_noise(config), expected, rtol=1e-12)


def test_step_is_that_of_an_ar1_process_with_independent_normal_numbers():
    process = NoiseProcess(coefficient=0.5, drift=0.1, innovation=2.0, initial=-3.0)
    before = noise.init(process, 20_000)
    after = np.asarray(noise.step(jax.random.key(0), before, process))
    assert scipy.stats.kstest(after, scipy.stats.norm(0.5 * -3.0 + 0.1, 2.0).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(after[::2], after[1::2])[0, 1]) < 5 / np.sqrt(10_000)
    np.testing.assert_allclose(noise.after(jnp.array([4.0]), jnp.array([1.5]), process), [0.5 * 4 + 0.1 + 2 * 1.5])


def test_scale_decays_by_episode():
    process = noise.gaussian(sigma=1.0)._replace(scale=0.1, decay=0.99)
    scales = [float(noise.scale(process, jnp.int32(episode))) for episode in (0, 1, 2, 1000)]
    np.testing.assert_allclose(scales, [0.1, 0.099, 0.09801, 4.3171e-6], rtol=1e-4)  # .99^1000 = e^-10.05034
