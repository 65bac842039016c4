"""Compares the preset `gist` with the TensorFlow 1 gist's update in NumPy, and answers a question of its readers."""

import jax
import numpy as np
import optax
import pytest
from parity_data import pendulum_batches
from parity_numpy import (
    HIGH,
    LOW,
    Net,
    Tensors,
    actor_and_critic,
    adam,
    gradient_error,
    l2,
    largest_deviation,
    layers_back,
    layers_forward,
    move_target,
    perturbed,
    plus_l2,
    unstacked,
)

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import AgentState, Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

GIST = PRESETS["gist"]

# The gist's own values. Its L2 term is 1e-6 * 0.5 * tf.nn.l2_loss(w), and l2_loss is half the sum of squares.
GAMMA, TAU, LR = 0.99, 1e-2, 1e-3
L2_REG = 1e-6
TF_EPSILON = 1e-8  # tf.train.AdamOptimizer's default

ACTOR = ("hidden/Dense_0", "hidden/Dense_1", "hidden/Dense_2", "final/Dense_0")
CRITIC = ("trunk/Dense_0", "trunk/Dense_1", "trunk/Dense_2", "final/Dense_0")


def sigmoid_bounded(x: np.ndarray) -> np.ndarray:
    return LOW + (HIGH - LOW) / (1 + np.exp(-x))


def critic_value(p: Tensors, s: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns Q [B, 1] of state and action, which are concatenated at the input."""
    return layers_forward(p, CRITIC, np.concatenate([s, a], axis=1))


def td_targets(actor: Tensors, critic: Tensors, batch: Transition) -> np.ndarray:
    """Returns y [B, 1], computed with the slow targets."""
    next_action = sigmoid_bounded(layers_forward(actor, ACTOR, batch.next_observation)[0])
    next_value, _ = critic_value(critic, batch.next_observation, next_action)
    return batch.reward[:, None] + batch.discount[:, None] * GAMMA * next_value


def critic_loss_and_gradient(p: Tensors, batch: Transition, y: np.ndarray) -> tuple[float, Tensors]:
    """Returns the mean squared TD error, and its gradient for the critic."""
    q, inputs = critic_value(p, batch.observation, batch.action)
    _, gradient = layers_back(p, CRITIC, inputs, 2 * (q - y) / len(q))
    return ((y - q) ** 2).mean(), gradient


def actor_loss_and_gradient(p: Tensors, critic: Tensors, batch: Transition) -> tuple[float, Tensors]:
    """Returns the mean of -Q of the actor's own actions, and its gradient for the actor, through the critic."""
    unbounded, inputs = layers_forward(p, ACTOR, batch.observation)
    action = sigmoid_bounded(unbounded)
    q, critic_inputs = critic_value(critic, batch.observation, action)
    d_input, _ = layers_back(critic, CRITIC, critic_inputs, np.full_like(q, -1 / len(q)))
    d_action = d_input[:, batch.observation.shape[1] :]
    sigmoid = (action - LOW) / (HIGH - LOW)
    _, gradient = layers_back(p, ACTOR, inputs, d_action * (HIGH - LOW) * sigmoid * (1 - sigmoid))
    return -q.mean(), gradient


def gist_update(actor: Net, critic: Net, batch: Transition, t: int) -> tuple[tuple[Net, Net], tuple[float, float]]:
    """Makes update t = 1, 2, …: both train ops in one run call, so from the same weights, then the slow targets."""
    y = td_targets(actor.target, critic.target, batch)
    critic_loss, critic_gradient = critic_loss_and_gradient(critic.params, batch, y)
    actor_loss, actor_gradient = actor_loss_and_gradient(actor.params, critic.params, batch)
    nets = []
    for net, gradient in ((actor, actor_gradient), (critic, critic_gradient)):
        gradient = plus_l2(gradient, net.params, 0.5 * L2_REG)
        net = adam(net, gradient, t, learning_rate=LR, eps=TF_EPSILON, eps_hat=True)
        nets.append(move_target(net, TAU))
    return (nets[0], nets[1]), (critic_loss, actor_loss)


@pytest.fixture(scope="module")
def batches() -> Transition:
    """50 minibatches of 1024 real transitions, where the time limit is terminal as in the gist."""
    batches = pendulum_batches(50, 1024, time_limit_terminal=True)
    assert (batches.discount == 0).any()
    return batches


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def algorithm_of(config) -> agent.Algorithm:
    return make_algorithm(config, (LOW,), (HIGH,))


def new_agent(config, dtype: type) -> AgentState:
    return agent.init(jax.random.key(3), np.zeros(3, dtype), algorithm=algorithm_of(config))


def update(state: AgentState, batch: Transition, config=GIST, **hyperparameters) -> tuple:
    """Makes one update with the package, which draws nothing at random without dropout."""
    values = make_hyperparameters(config)._replace(**hyperparameters)
    return agent.update(jax.random.key(0), state, batch, algorithm=algorithm_of(config), hyperparameters=values)


@pytest.mark.usefixtures("x64")
def test_gradients_by_hand_are_the_slopes_of_the_losses(batches):
    batch = Transition(*(field[0, :64].astype(np.float64) for field in batches))
    actor, critic = actor_and_critic(perturbed(new_agent(GIST, np.float64), 0.1))
    y = td_targets(actor.target, critic.target, batch)
    factor = 0.3  # the gist's 5e-7 would drown in the rounding of the differences

    def critic_loss(p: Tensors) -> tuple[float, Tensors]:
        loss, gradient = critic_loss_and_gradient(p, batch, y)
        return loss + l2(p, factor), plus_l2(gradient, p, factor)

    def actor_loss(p: Tensors) -> tuple[float, Tensors]:
        loss, gradient = actor_loss_and_gradient(p, critic.params, batch)
        return loss + l2(p, factor), plus_l2(gradient, p, factor)

    for loss, params in ((critic_loss, critic.params), (actor_loss, actor.params)):
        assert gradient_error(lambda p, loss=loss: loss(p)[0], params, loss(params)[1], entries=100) < 1e-6


@pytest.mark.usefixtures("x64")
def test_fifty_updates_end_where_the_gist_in_numpy_ends(batches):
    state = new_agent(GIST, np.float64)
    reference = actor_and_critic(state)
    for t, batch in enumerate(unstacked(batches), start=1):
        state, info = update(state, batch)
        reference, losses = gist_update(*reference, batch, t)
        np.testing.assert_allclose((info.critic_loss, info.actor_loss), losses, rtol=1e-9)
    deviations = largest_deviation(state, reference)
    assert max(deviations.values()) <= 1e-9, deviations


@pytest.mark.parametrize("order", ["together", "critic_first"])
def test_actors_step_leaves_the_critic_unchanged(batches, order):
    """A reader asks: "Isn't the critic updated twice in every step?" No: the actor's step moves only the actor."""
    config = GIST.replace(update_order=order)
    batch = Transition(*(field[0] for field in batches))
    state = new_agent(config, np.float32)

    without_critic_step, _ = update(state, batch, config, critic_lr=0.0)
    assert bits(without_critic_step.critic["params"]) == bits(state.critic["params"])
    assert bits(without_critic_step.actor["params"]) != bits(state.actor["params"])

    ordinary, _ = update(state, batch, config)
    without_actor_step, _ = update(state, batch, config, actor_lr=0.0)
    assert bits(ordinary.actor["params"]) != bits(without_actor_step.actor["params"])
    assert bits(ordinary.critic["params"]) == bits(without_actor_step.critic["params"]) != bits(state.critic["params"])
    assert bits(ordinary.critic_optimizer_state) == bits(without_actor_step.critic_optimizer_state)
    assert optax.tree.get(ordinary.critic_optimizer_state, "count") == 1


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_corrected_gist_updates_as_the_gist_does():
    corrected = PRESETS["gist_corrected"]
    noise = make_hyperparameters(GIST).noise
    assert algorithm_of(corrected) == algorithm_of(GIST)
    assert make_hyperparameters(corrected)._replace(noise=noise) == make_hyperparameters(GIST)
