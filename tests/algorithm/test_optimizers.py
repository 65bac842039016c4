"""Tests the limit on the norm of gradients; Adam's two forms and L2 are in the parity tests."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpg_jax.algorithm import optimizers


@pytest.mark.parametrize(("max_norm", "factor"), [(1.0, 1 / 5), (10.0, 1.0)])
def test_gradients_are_scaled_down_to_the_largest_norm(max_norm, factor):
    """The norm of (3, 4) is 5. Adam's first moment is 0.1 of the gradient."""
    params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
    gradients = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
    optimizer = optimizers.Clipped(optimizers.adam, max_norm)(0.1, 1e-8, 0.0)
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    moment = optax.tree.get(state, "mu")
    np.testing.assert_allclose([moment["kernel"][0], moment["bias"][0]], [0.3 * factor, 0.4 * factor], rtol=1e-6)
