"""ReLU: the bits of Flax, derivatives in both modes, and the kernel that its derivative compiles to."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import networks


def test_relu_and_its_derivative_have_the_bits_of_flax():
    x = jnp.array([-3e38, -2.0, -1e-40, -0.0, 0.0, 1e-40, 0.5, 3e38])
    gradient = jnp.array([1.0, jnp.inf, -5.0, 2.0, -1e-40, 3.0, -0.7, 1e38])
    values, backward = jax.vjp(networks.relu, x)
    expected_values, expected_backward = jax.vjp(nn.relu, x)
    assert values.tobytes() == expected_values.tobytes()
    assert backward(gradient)[0].tobytes() == expected_backward(gradient)[0].tobytes()
    tangent, expected = (jax.jvp(relu, (x,), (gradient,))[1] for relu in (networks.relu, nn.relu))
    assert tangent.tobytes() == expected.tobytes()


def test_relu_can_be_differentiated_twice_in_both_modes():
    def function(x):
        return jnp.sum(networks.relu(x) ** 3)

    x = jnp.array([-2.0, 0.5, 3.0])
    second = np.diag([0.0, 3.0, 18.0])
    np.testing.assert_allclose(jax.hessian(function)(x), second)  # forward over reverse
    np.testing.assert_allclose(jax.jacrev(jax.grad(function))(x), second)


def test_the_derivative_of_relu_selects_no_gradient_as_it_lies_in_memory():
    def selected(relu) -> list[str]:
        program = jax.jit(lambda x, gradient: jax.vjp(relu, x)[1](gradient)).lower(jnp.ones(99), jnp.ones(99)).compile()
        return [line for line in program.as_text().splitlines() if re.search(r" select\(.*%(param|gradient)", line)]

    assert selected(networks.relu) == []
    assert len(selected(nn.relu)) == 1  # so that the expression finds one
