"""Tests products with operands rounded to bfloat16: values, gradients, and what stays in float32."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from command import main, results

import ddpg_jax
from ddpg_jax.algorithm import products
from ddpg_jax.population.assembly import make_hyperparameters
from ddpg_jax.population.blocks import Population, agent_keys
from ddpg_jax.population.programs import Placement, compile_programs


def rounded(x):
    return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.fixture
def operands():
    generator = np.random.default_rng(0)
    return tuple(generator.normal(size=shape).astype(np.float32) for shape in ((5, 64), (64, 32), (5, 32)))


def test_operands_are_rounded_and_sums_are_not(operands):
    x, kernel, _ = operands
    expected = rounded(x) @ rounded(kernel)
    np.testing.assert_allclose(products.in_bfloat16(x, kernel), expected, rtol=1e-5, atol=1e-5)
    assert abs(expected - x.astype(float) @ kernel).max() > 1e-3  # so the line above can detect it
    assert abs(expected - rounded(expected)).max() > 1e-3


def test_gradients_are_products_of_the_same_kind(operands):
    x, kernel, gradient = operands
    _, pull = jax.vjp(products.in_bfloat16, x, kernel)
    dx, dkernel = pull(gradient)
    np.testing.assert_allclose(dx, rounded(gradient) @ rounded(kernel).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, rounded(x).T @ rounded(gradient), rtol=1e-5, atol=1e-5)
    assert dx.dtype == dkernel.dtype == jnp.float32


def test_rows_may_stand_along_any_axes(operands):
    x, kernel, _ = operands
    one, many = products.in_bfloat16(x[0], kernel), products.in_bfloat16(np.stack([x, x]), kernel)
    np.testing.assert_allclose(one, products.in_bfloat16(x, kernel)[0], rtol=1e-5, atol=1e-5)
    assert many.shape == (2, 5, 32)
    dkernel = jax.grad(lambda kernel: products.in_bfloat16(np.stack([x, x]), kernel).sum())(kernel)
    np.testing.assert_allclose(dkernel, 2 * rounded(x).T @ np.ones((5, 32)), rtol=1e-5, atol=1e-5)


def test_few_features_are_not_rounded(operands):
    x, kernel, _ = operands
    few = products.FEW - 1
    np.testing.assert_array_equal(
        products.in_bfloat16(x[:, :few], kernel[:few]), products.exact(x[:, :few], kernel[:few])
    )


@pytest.mark.parametrize("preset", ["keras", *(pytest.param(p, marks=pytest.mark.slow) for p in ("pendulum", "paper"))])
def test_presets_train_with_it(preset):
    """XLA cannot compute every product of bfloat16 on a CPU; it can compute these."""
    config = ddpg_jax.PRESETS[preset].replace(matmul_dtype="bfloat16", learning_starts=70, replay_capacity=2_000)
    setup = ddpg_jax.make_setup(config, ddpg_jax.make(config.env_id))
    placement = Placement(tuple(jax.devices()[:1]), 1)
    programs = compile_programs(setup, placement, max_steps=80, num_starts=2)
    hyperparameters = jax.tree.map(lambda x: np.full(placement.group_size, x, np.float32), make_hyperparameters(config))
    population = Population(programs, agent_keys(0, np.arange(placement.group_size)), hyperparameters)
    population.advance(80)
    parameters = jax.device_get(population.states[0].agent.critic["params"])
    assert all(np.isfinite(leaf).all() and leaf.dtype == np.float32 for leaf in jax.tree.leaves(parameters))


@pytest.mark.slow
def test_a_run_remembers_the_dtype(tmp_path):
    """So its policy acts, and a resumed run learns, in the same dtype."""
    flags = ("--seeds", 2, "--matmul-dtype", "bfloat16", "--hidden-sizes", 32, 32, "--out")
    whole, halves, exact = (tmp_path / name for name in ("whole", "halves", "exact"))
    assert main(*flags, whole).status == 0
    assert main(*flags, halves, "--total-steps", 100).status == 0
    assert main("--resume", halves, "--total-steps", 200).status == 0
    assert results(whole) == results(halves)
    assert main(*flags, exact, "--matmul-dtype", "float32").status == 0
    assert results(whole) != results(exact)
    assert ddpg_jax.load_policy(whole).actor.hidden.product is products.in_bfloat16
