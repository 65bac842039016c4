"""Compares the presets `gist` and `gist_corrected` with the TensorFlow 1 gist's update."""

import jax
import jax.numpy as jnp
import pytest
from parity import largest_deviations, pendulum_batches
from plain_update import HIGH, LOW, Net, adam, layers_forward, move_target, plus_l2

from ddpg_jax.algorithm.types import Transition
from ddpg_jax.presets import PRESETS

# The gist's own values. Its L2 term is 1e-6 * 0.5 * tf.nn.l2_loss(w), and l2_loss is half the sum of squares.
GAMMA, TAU, LR, L2_REG = 0.99, 1e-2, 1e-3, 1e-6
TF_EPSILON = 1e-8  # tf.train.AdamOptimizer's default

ACTOR = ("hidden/Dense_0", "hidden/Dense_1", "hidden/Dense_2", "final/Dense_0")
CRITIC = ("trunk/Dense_0", "trunk/Dense_1", "trunk/Dense_2", "final/Dense_0")


def policy(p, s):
    return LOW + (HIGH - LOW) / (1 + jnp.exp(-layers_forward(p, ACTOR, s)))


def value(p, s, a):
    return layers_forward(p, CRITIC, jnp.concatenate([s, a], axis=1))[:, 0]


@jax.jit
def gist_update(actor: Net, critic: Net, batch: Transition, t: int):
    """Makes update t = 1, 2, …: both train ops in one run call, so from the same weights, then the slow targets."""
    next_value = value(critic.target, batch.next_observation, policy(actor.target, batch.next_observation))
    y = batch.reward + batch.discount * GAMMA * next_value

    def critic_loss(p):
        return ((y - value(p, batch.observation, batch.action)) ** 2).mean()

    def actor_loss(p):
        return -value(critic.params, batch.observation, policy(p, batch.observation)).mean()

    nets, losses = [], []
    for net, loss in ((actor, actor_loss), (critic, critic_loss)):
        number, gradient = jax.value_and_grad(loss)(net.params)
        gradient = plus_l2(gradient, net.params, 0.5 * L2_REG)
        nets.append(move_target(adam(net, gradient, t, learning_rate=LR, eps=TF_EPSILON, eps_hat=True), TAU))
        losses.append(number)
    return tuple(nets), (losses[1], losses[0], value(critic.params, batch.observation, batch.action).mean())


@pytest.mark.parametrize("preset", ["gist", "gist_corrected"])
def test_fifty_updates_end_where_the_gists_formulas_end(preset):
    batches = pendulum_batches(50, 1024, time_limit_terminal=True)  # a time limit is terminal in the gist
    assert (batches.discount == 0).any()
    deviations, _, _ = largest_deviations(PRESETS[preset], batches, gist_update)
    assert max(deviations.values()) <= 1e-9, deviations
