"""Tests the three formulas on three transitions, one of them terminal, with values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ddpg_jax.algorithm import losses

REWARD = jnp.array([1.0, -2.0, 0.5])
DISCOUNT = jnp.array([1.0, 0.0, 1.0])  # the second transition is terminal
NEXT_VALUE = jnp.array([10.0, 100.0, -4.0])
VALUE = jnp.array([9.0, -1.0, -3.0])
TARGET = jnp.array([10.0, -2.0, -3.1])  # 1 + .9 x 10, -2, .5 - .9 x 4


def test_td_target_by_hand():
    np.testing.assert_allclose(losses.td_target(REWARD, DISCOUNT, NEXT_VALUE, gamma=0.9), TARGET, rtol=1e-6)


def test_critic_loss_by_hand():
    # errors 1, -1 and -.1: (1 + 1 + .01) / 3
    np.testing.assert_allclose(losses.critic_loss(VALUE, TARGET), 0.67, rtol=1e-5)


def test_actor_loss_by_hand():
    np.testing.assert_allclose(losses.actor_loss(VALUE), -5 / 3, rtol=1e-6)


def test_gradients_by_hand_and_by_finite_differences():
    # 2 (Q - y) / B and -1 / B
    np.testing.assert_allclose(jax.grad(losses.critic_loss)(VALUE, TARGET), np.array([-2, 2, 0.2]) / 3, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(losses.actor_loss)(VALUE), np.full(3, -1 / 3), rtol=1e-6)
    check_grads(lambda value: losses.critic_loss(value, TARGET), (VALUE,), order=1, modes=["rev"], rtol=1e-2)
    check_grads(losses.actor_loss, (VALUE,), order=1, modes=["rev"], rtol=1e-2)


def test_target_is_a_constant_to_the_critics_gradient():
    np.testing.assert_array_equal(jax.grad(losses.critic_loss, argnums=1)(VALUE, TARGET), np.zeros(3))

    def loss(weight):  # Q = w x, and a target that depends on w too
        target = losses.td_target(REWARD, DISCOUNT, weight * NEXT_VALUE, gamma=0.9)
        return losses.critic_loss(weight * VALUE, target)

    # at w = 1: 2/3 sum (Q - y) x = 2/3 (-1 x 9 - 1 x 1 - .1 x 3); through the target it would be another number
    np.testing.assert_allclose(jax.grad(loss)(1.0), 2 / 3 * (-9 - 1 - 0.3), rtol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.td_target(REWARD[:, None], DISCOUNT[:, None], NEXT_VALUE[:, None], gamma=0.9),
        lambda: losses.td_target(REWARD, DISCOUNT, NEXT_VALUE[:2], gamma=0.9),
        lambda: losses.td_target(REWARD, DISCOUNT, NEXT_VALUE[:, None], gamma=0.9),
        lambda: losses.critic_loss(VALUE[:, None], TARGET),  # would broadcast to [3, 3]
        lambda: losses.critic_loss(VALUE[:1], TARGET),
        lambda: losses.actor_loss(VALUE[:, None]),
        lambda: losses.actor_loss(VALUE[0]),
    ],
)
def test_wrong_shapes_are_refused(call):
    with pytest.raises(AssertionError):
        call()
