"""Tests that the core does not depend on JAX's settings for promotion and 64 bits: strict ones change no bit."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.algorithm import evaluation, loop
from ddpg_jax.environments.registry import task_of
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup


@contextlib.contextmanager
def strict(enable_x64):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"), jax.enable_x64(enable_x64):
        yield


def train(preset):
    """Returns all of an agent after 40 steps, and its greedy returns, as NumPy arrays."""
    config = PRESETS[preset].replace(
        hidden_sizes=(8,), critic_hidden_sizes=None, total_steps=40, learning_starts=20, batch_size=16,
        replay_capacity=32, eval_every=20, max_episode_steps=15, random_steps=0,
    )  # fmt: skip
    setup = make_setup(config)
    hyperparameters = jax.tree.map(np.float32, make_hyperparameters(config))
    state = jax.jit(partial(loop.init, setup=setup))(jax.random.key(0), hyperparameters)
    advance = jax.jit(partial(loop.train, setup=setup, max_steps=40))
    state, log = advance(state, hyperparameters, jnp.int32(40))
    evaluate = partial(evaluation.greedy_episodes, environment=setup.environment, algorithm=setup.algorithm)
    returns = jax.jit(evaluate)(state.agent, task_of(config).evaluation_starts(3))
    state = state._replace(key=jax.random.key_data(state.key))
    return jax.tree.map(np.asarray, (state, log, returns))


# Together they have both forms of Adam, layers with batch normalisation and without, and a categorical critic.
# Without `adam_eps_hat`, Optax corrects Adam's bias in 64 bits, so that only dtypes can be compared.
@pytest.mark.parametrize(
    ("preset", "enable_x64"),
    [
        ("gist", True),
        *(pytest.param(p, x64, marks=pytest.mark.slow) for p in ("pendulum", "paper", "d4pg") for x64 in (False, True)),
    ],
)
def test_core_has_the_same_bits_under_strict_settings(preset, enable_x64):
    expected = train(preset)
    with strict(enable_x64):
        result = train(preset)
    for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        if not enable_x64 or PRESETS[preset].adam_eps_hat:
            np.testing.assert_array_equal(ours, theirs)
