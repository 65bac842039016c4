"""Tests products with operands rounded to bfloat16: values, gradients, and what stays in float32."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ddpg_jax.algorithm import agent, matmul
from ddpg_jax.algorithm.types import Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters


def rounded(x):
    return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.fixture
def operands():
    generator = np.random.default_rng(0)
    return tuple(generator.normal(size=shape).astype(np.float32) for shape in ((5, 64), (64, 32), (5, 32)))


def test_operands_are_rounded_and_sums_are_not(operands):
    x, kernel, _ = operands
    expected = rounded(x) @ rounded(kernel)
    np.testing.assert_allclose(matmul.in_bfloat16(x, kernel), expected, rtol=1e-5, atol=1e-5)
    assert abs(expected - x.astype(float) @ kernel).max() > 1e-3  # so the line above can detect it
    assert abs(expected - rounded(expected)).max() > 1e-3
    few = matmul.MIN_FEATURES - 1
    np.testing.assert_array_equal(matmul.in_bfloat16(x[:, :few], kernel[:few]), x[:, :few] @ kernel[:few])


def test_gradients_are_products_of_the_same_kind(operands):
    x, kernel, gradient = operands
    _, pull = jax.vjp(matmul.in_bfloat16, x, kernel)
    dx, dkernel = pull(gradient)
    np.testing.assert_allclose(dx, rounded(gradient) @ rounded(kernel).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, rounded(x).T @ rounded(gradient), rtol=1e-5, atol=1e-5)
    assert dx.dtype == dkernel.dtype == jnp.float32


def test_rows_may_be_along_any_axes(operands):
    x, kernel, _ = operands
    np.testing.assert_allclose(matmul.in_bfloat16(x[0], kernel), rounded(x[0]) @ rounded(kernel), rtol=1e-5, atol=1e-5)
    dkernel = jax.grad(lambda kernel: matmul.in_bfloat16(np.stack([x, x]), kernel).sum())(kernel)
    np.testing.assert_allclose(dkernel, 2 * rounded(x).T @ np.ones((5, 32)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("preset", ["keras", pytest.param("paper", marks=pytest.mark.slow)])
def test_presets_learn_with_it(preset):
    """XLA cannot compute every product of bfloat16 on a CPU; it can compute these."""
    config = PRESETS[preset].replace(matmul_dtype="bfloat16")
    algorithm, key = make_algorithm(config, (-2.0,), (2.0,)), jax.random.key(0)
    before = agent.init(key, jnp.zeros(3), algorithm=algorithm)
    draw = np.random.default_rng(0)
    batch = Transition(*(draw.normal(size=(64, *shape)).astype(np.float32) for shape in ((3,), (1,), (), (), (3,))))
    after, _ = agent.update(key, before, batch, algorithm=algorithm, hyperparameters=make_hyperparameters(config))
    for name in ("actor", "critic"):
        for old, new in zip(*(jax.tree.leaves(getattr(each, name)["params"]) for each in (before, after)), strict=True):
            assert new.dtype == np.float32
            assert np.isfinite(new).all()
            assert not np.array_equal(old, new)
