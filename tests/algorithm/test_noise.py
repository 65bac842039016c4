"""Compares each noise with the stationary moments of its AR(1) process, computed from its equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.algorithm import noise
from ddpg_jax.algorithm.types import NoiseProcess
from ddpg_jax.config import Config
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_noise

# Lag-1 correlation a and asymptotic standard deviation, innovation / sqrt(1 - a^2), by hand:
# tutorial: 1 - .15 x .01, .2 sqrt(.01) / sqrt(1 - .9985^2); gist: -.15, .2 / sqrt(1 - .0225);
# textbook: 1 - .15, .2 / sqrt(1 - .7225).
REFERENCES = {
    "tutorial": (noise.ornstein_uhlenbeck(theta=0.15, sigma=0.2, dt=0.01), 0.9985, 0.36528),
    "gist": (noise.unaccumulated(theta=0.15, sigma=0.2), -0.15, 0.20229),
    "textbook": (noise.ornstein_uhlenbeck(theta=0.15, sigma=0.2), 0.85, 0.37966),
    "gaussian": (noise.gaussian(sigma=0.2), 0.0, 0.2),
}


def simulate(process: NoiseProcess, *, steps: int = 4000, walks: int = 1000, burn_in: int = 4000) -> np.ndarray:
    """Returns values [steps, walks] of independent walks, after each has forgotten its start."""

    @jax.jit
    def run(key):
        start = noise.init(process._replace(initial=0.7), walks)
        keys = jax.random.split(key, burn_in + steps)
        return jax.lax.scan(lambda x, key: (noise.step(key, x, process),) * 2, start, keys)[1][burn_in:]

    return np.asarray(run(jax.random.key(0)), np.float64)


@pytest.mark.parametrize("name", REFERENCES)
def test_noise_has_the_moments_and_the_correlation_of_its_equation(name):
    process, correlation, deviation = REFERENCES[name]
    values = simulate(process)
    num = values.size
    # Standard errors of an AR(1) process's mean, standard deviation and lag-1 correlation (Bartlett).
    mean_error = deviation * np.sqrt((1 + correlation) / (1 - correlation) / num)
    deviation_error = deviation * np.sqrt((1 + correlation**2) / (1 - correlation**2) / (2 * num))
    correlation_error = np.sqrt((1 - correlation**2) / num)
    assert abs(values.mean()) < 5 * mean_error
    assert abs(values.std() - deviation) < 5 * deviation_error + 5e-6
    assert abs(np.mean(values[1:] * values[:-1]) / np.mean(values**2) - correlation) < 5 * correlation_error
    assert deviation_error < 0.02 * deviation  # the test can distinguish .365 from .380
    assert abs(np.corrcoef(values[0, 0::2], values[0, 1::2])[0, 1]) < 5 / np.sqrt(500)  # walks are independent


def test_scale_decays_by_episode():
    process = noise.gaussian(sigma=1.0)._replace(scale=0.1, decay=0.99)
    scales = [float(noise.scale(process, jnp.int32(episode))) for episode in (0, 1, 2, 1000)]
    np.testing.assert_allclose(scales, [0.1, 0.099, 0.09801, 4.3171e-6], rtol=1e-4)  # .99^1000 = e^-10.05034


# coefficient, drift and innovation by hand from the sources' equations
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
