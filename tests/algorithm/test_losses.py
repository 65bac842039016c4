"""Tests the three formulas on three transitions, one of them terminal, with values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.algorithm import losses

REWARD = jnp.array([1.0, -2.0, 0.5])
DISCOUNT = jnp.array([1.0, 0.0, 1.0])  # the second transition is terminal
NEXT_VALUE = jnp.array([10.0, 100.0, -4.0])
VALUE = jnp.array([9.0, -1.0, -3.0])
TARGET = jnp.array([10.0, -2.0, -3.1])  # 1 + .9 x 10, -2, .5 - .9 x 4


def test_formulas_and_their_gradients_by_hand():
    np.testing.assert_allclose(losses.td_target(REWARD, DISCOUNT, NEXT_VALUE, gamma=0.9), TARGET, rtol=1e-6)
    # errors 1, -1 and -.1: (1 + 1 + .01) / 3; the gradients are 2 (Q - y) / B and -1 / B
    np.testing.assert_allclose(losses.critic_loss(VALUE, TARGET), 0.67, rtol=1e-5)
    np.testing.assert_allclose(losses.actor_loss(VALUE), -5 / 3, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(losses.critic_loss)(VALUE, TARGET), np.array([-2, 2, 0.2]) / 3, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(losses.actor_loss)(VALUE), np.full(3, -1 / 3), rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.td_target(REWARD, DISCOUNT, NEXT_VALUE[:, None], gamma=0.9),
        lambda: losses.critic_loss(VALUE[:, None], TARGET),  # would broadcast to [3, 3]
        lambda: losses.actor_loss(VALUE[:, None]),
    ],
)
def test_wrong_shapes_are_refused(call):
    with pytest.raises(AssertionError):
        call()
