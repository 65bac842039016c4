"""Tests the limit on the norm of gradients, and AdamW; Adam's two forms and L2 are in the parity tests."""

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


def test_decoupled_l2_is_adamw_on_kernels():
    """Three steps of Loshchilov & Hutter 2019, Algorithm 2, in NumPy; optax.adamw agrees."""
    params, draw, rate, l2 = {"kernel": jnp.ones(4), "bias": jnp.ones(4)}, np.random.default_rng(0), 0.1, 0.5
    ours = optimizers.Decoupled(optimizers.adam)(rate, 1e-8, l2)
    theirs = optax.adamw(rate, weight_decay=l2, mask={"kernel": True, "bias": False})
    found, reference = params, params
    state, other = ours.init(params), theirs.init(params)
    moments = {name: [np.zeros(4), np.zeros(4)] for name in params}
    expected = {name: np.ones(4) for name in params}
    for step in (1, 2, 3):
        gradients = {name: draw.normal(size=4).astype(np.float32) for name in params}
        updates, state = ours.update(gradients, state, found)
        found = optax.apply_updates(found, updates)
        updates, other = theirs.update(gradients, other, reference)
        reference = optax.apply_updates(reference, updates)
        for name, g in gradients.items():
            m, v = moments[name]
            m[:], v[:] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            adam = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            expected[name] = expected[name] - rate * (adam + (l2 if name == "kernel" else 0) * expected[name])
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
        np.testing.assert_allclose(found[name], reference[name], rtol=1e-6)
