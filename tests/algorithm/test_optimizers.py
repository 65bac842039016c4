"""Compares both forms of Adam with NumPy, and tests L2 and the limit on the norm of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpg_jax.algorithm import optimizers


def numpy_adam(gradients, *, learning_rate, eps, eps_hat):
    """Kingma & Ba 2015, Algorithm 1; with `eps_hat` in the order of the end of its section 2."""
    x, m, v = 0.0, 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        if eps_hat:
            x -= learning_rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + eps)
        else:
            x -= learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return x


@pytest.mark.parametrize("eps_hat", [False, True])
def test_adam_makes_the_steps_of_its_paper(eps_hat):
    """In float64: in float32 the bias correction 1 - b2^t is rounded by 1e-5 of its value on some processors."""
    make = optimizers.adam_eps_hat if eps_hat else optimizers.adam
    gradients = [0.3, -0.2, 0.5]
    with jax.enable_x64(True):
        optimizer = make(0.1, 0.05, 0.0)  # an epsilon that is large enough to distinguish the two forms
        params = {"bias": jnp.zeros((), jnp.float64)}
        state = optimizer.init(params)
        for gradient in gradients:
            step, state = optimizer.update({"bias": jnp.asarray(gradient)}, state, params)
            params = optax.apply_updates(params, step)
    expected = [numpy_adam(gradients, learning_rate=0.1, eps=0.05, eps_hat=form) for form in (False, True)]
    np.testing.assert_allclose(params["bias"], expected[eps_hat], rtol=1e-10)
    assert abs(expected[0] - expected[1]) > 0.01


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.adam_eps_hat])
def test_l2_is_added_to_the_kernels_gradient_before_adam(make):
    params = {"Dense_0": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([3.0])}}
    gradients = jax.tree.map(lambda x: jnp.full_like(x, 0.2), params)
    with_l2, without = make(0.1, 1.0, 0.5), make(0.1, 1.0, 0.0)
    step, _ = with_l2.update(gradients, with_l2.init(params), params)
    of_sum, _ = without.update(jax.tree.map(lambda x: x + 0.5 * 3.0, gradients), without.init(params), params)
    of_gradient, _ = without.update(gradients, without.init(params), params)
    np.testing.assert_allclose(step["Dense_0"]["kernel"], of_sum["Dense_0"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(step["Dense_0"]["bias"], of_gradient["Dense_0"]["bias"])


@pytest.mark.parametrize(("max_norm", "factor"), [(1.0, 1 / 5), (10.0, 1.0)])
def test_gradients_are_scaled_down_to_the_largest_norm(max_norm, factor):
    """The norm of (3, 4) is 5. Adam's first moment is 0.1 of the gradient."""
    params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
    gradients = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
    optimizer = optimizers.Clipped(optimizers.adam, max_norm)(0.1, 1e-8, 0.0)
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    moment = optax.tree.get(state, "mu")
    np.testing.assert_allclose([moment["kernel"][0], moment["bias"][0]], [0.3 * factor, 0.4 * factor], rtol=1e-6)
