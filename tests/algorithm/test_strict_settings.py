"""JAX's settings: the core is clean under strict ones, and what `ddpg_jax.train` returns depends on none of them."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ddpg_jax.population.programs import Placement, lower_programs
from ddpg_jax.processes.devices import own_settings

import ddpg_jax
from ddpg_jax.algorithm import evaluation, loop


@contextlib.contextmanager
def no_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


SETTINGS = {"no_promotion": no_promotion, "enable_x64": lambda: jax.enable_x64(True)}
OTHERS = {
    "threefry_partitionable=0": lambda: jax.threefry_partitionable(False),
    "disable_jit": lambda: jax.disable_jit(True),
    "default_prng_impl=rbg": lambda: jax.default_prng_impl("rbg"),
}
PRESETS = ("pendulum", "gist", "paper")
"""Together they have both forms of Adam, and layers with batch normalisation and without."""


def tiny(preset):
    return ddpg_jax.PRESETS[preset].replace(
        hidden_sizes=(8, 8),
        critic_hidden_sizes=None,
        total_steps=40,
        learning_starts=20,
        batch_size=16,
        replay_capacity=30,
        eval_every=20,
        eval_episodes=2,
        max_episode_steps=15,
    )


def train_by_hand(preset):
    """Returns all that one agent is after 40 steps, and its greedy returns, as NumPy arrays."""
    config = tiny(preset)
    setup = ddpg_jax.make_setup(config, ddpg_jax.make(config.env_id))
    hyperparameters = jax.tree.map(np.float32, ddpg_jax.make_hyperparameters(config))
    state = jax.jit(partial(loop.init, setup=setup))(jax.random.key(0), hyperparameters)
    train = jax.jit(partial(loop.train, setup=setup, max_steps=40))
    state, log = train(state, hyperparameters, jnp.int32(40))
    evaluate = partial(evaluation.greedy_episodes, environment=setup.environment, algorithm=setup.algorithm)
    returns = jax.jit(evaluate)(state.agent, setup.environment.evaluation_starts(3))
    state = state._replace(key=jax.random.key_data(state.key))
    return jax.tree.map(np.asarray, (state, log, returns))


def differences(left, right):
    """Returns where two trees differ in dtype or in a bit."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True)
    return [jax.tree_util.keystr(path) for (path, a), b in pairs if a.dtype != b.dtype or not np.array_equal(a, b)]


@pytest.fixture(scope="module", params=PRESETS)
def usual(request):
    return request.param, train_by_hand(request.param)


@pytest.mark.parametrize("setting", SETTINGS)
def test_core_is_clean_under_strict_settings(usual, setting):
    preset, expected = usual
    with SETTINGS[setting]():
        result = train_by_hand(preset)
    if setting == "enable_x64" and not ddpg_jax.PRESETS[preset].adam_eps_hat:  # Optax corrects Adam's bias in 64 bits
        assert [leaf.dtype for leaf in jax.tree.leaves(result)] == [leaf.dtype for leaf in jax.tree.leaves(expected)]
    else:
        assert differences(result, expected) == []


def test_training_from_python_does_not_depend_on_any_setting():
    policy, history = ddpg_jax.train(tiny("pendulum"), num_agents=2)
    for name, setting in (SETTINGS | OTHERS).items():
        with setting():
            other, other_history = ddpg_jax.train(tiny("pendulum"), num_agents=2)
        assert differences(other.variables, policy.variables) == [], name
        assert np.array_equal(other_history.metrics.eval_return, history.metrics.eval_return), name


def test_products_are_float32_on_every_device():
    """A TPU or a GPU would round their operands, by default or where the caller says so."""
    setup = ddpg_jax.make_setup(tiny("pendulum"), ddpg_jax.make("Pendulum-v1"))
    placement = Placement((jax.devices()[0],), 2)
    with jax.default_matmul_precision("bfloat16"), own_settings():
        text = lower_programs(setup, placement, max_steps=40, num_starts=2)["train"].as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 20
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
