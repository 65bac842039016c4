"""TD3's update against one in NumPy float64 with gradients by hand, after Fujimoto et al. 2018, Algorithm 1."""

import jax
import numpy as np
import pytest
from parity_data import pendulum_batches
from parity_numpy import (
    HIGH,
    LOW,
    Net,
    actor_and_critic,
    adam,
    critic_of,
    gradient_error,
    largest_deviation,
    layers_back,
    layers_forward,
    move_target,
    perturbed,
    unstacked,
)

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import Transition
from ddpg_jax.config import Config
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

NUM_CRITICS, DELAY, SIGMA, CLIP = 2, 2, 0.2, 0.5
CONFIG = Config(
    hidden_sizes=(20, 16), hidden_init="fan_in_uniform", actor_final_init=None, actor_lr=1e-3, critic_lr=1e-3,
    num_critics=NUM_CRITICS, policy_delay=DELAY, target_noise=SIGMA, target_noise_clip=CLIP,
)  # fmt: skip
LR, EPS, GAMMA, TAU = 1e-3, 1e-8, 0.99, 0.005
HALF = (HIGH - LOW) / 2
ACTOR = ("hidden/Dense_0", "hidden/Dense_1", "final/Dense_0")
CRITIC = ("trunk/Dense_0", "trunk/Dense_1", "final/Dense_0")


def act(p, observation):
    return HALF * np.tanh(layers_forward(p, ACTOR, observation)[0]) + (LOW + HIGH) / 2


def value(p, observation, action):
    return layers_forward(p, CRITIC, np.concatenate([observation, action], axis=1))[0][:, 0]


def stacked(each):
    return {f"critic/{name}": np.stack([gradient[name] for gradient in each]) for name in each[0]}


def td_targets(actor, critic, batch, noise):
    """y = r + gamma d min_k Q'_k(s', a'), with a' = clip(mu'(s') + clip(e, -c, c)), e in units of half the range."""
    action = np.clip(act(actor.target, batch.next_observation) + HALF * np.clip(noise, -CLIP, CLIP), LOW, HIGH)
    values = [value(critic_of(critic.target, k), batch.next_observation, action) for k in range(NUM_CRITICS)]
    return batch.reward + GAMMA * batch.discount * np.minimum(*values)


def critic_loss_and_gradient(params, batch, y):
    """The sum of both critics' mean squared errors, and its gradient."""
    loss, gradients = 0.0, []
    for k in range(NUM_CRITICS):
        p = critic_of(params, k)
        output, inputs = layers_forward(p, CRITIC, np.concatenate([batch.observation, batch.action], axis=1))
        error = output[:, 0] - y
        loss += np.mean(error**2)
        gradients.append(layers_back(p, CRITIC, inputs, (2 * error / len(y))[:, None])[1])
    return loss, stacked(gradients)


def actor_loss_and_gradient(params, critic_params, batch):
    """Minus the mean value of the first critic, and its gradient by the chain rule through the action."""
    output, inputs = layers_forward(params, ACTOR, batch.observation)
    first = critic_of(critic_params, 0)
    action = HALF * np.tanh(output) + (LOW + HIGH) / 2
    values, critic_inputs = layers_forward(first, CRITIC, np.concatenate([batch.observation, action], axis=1))
    d, _ = layers_back(first, CRITIC, critic_inputs, np.full_like(values, -1 / len(values)))
    d_action = d[:, batch.observation.shape[1] :]
    return -values.mean(), layers_back(params, ACTOR, inputs, d_action * HALF * (1 - np.tanh(output) ** 2))[1]


def reference_update(actor: Net, critic: Net, batch, noise, t: int) -> tuple[Net, Net]:
    """Update t = 1, 2, … of Algorithm 1; the actor's optimizer counts its own steps."""
    y = td_targets(actor, critic, batch, noise)
    critic = adam(
        critic, critic_loss_and_gradient(critic.params, batch, y)[1], t, learning_rate=LR, eps=EPS, eps_hat=False
    )
    if t % DELAY == 0:
        gradient = actor_loss_and_gradient(actor.params, critic.params, batch)[1]
        actor = adam(actor, gradient, t // DELAY, learning_rate=LR, eps=EPS, eps_hat=False)
        actor, critic = move_target(actor, TAU), move_target(critic, TAU)
    return actor, critic


@pytest.fixture(scope="module")
def batches() -> Transition:
    return pendulum_batches(50, 64, time_limit_terminal=True)


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def new_agent():
    return agent.init(jax.random.key(3), np.zeros(3), algorithm=make_algorithm(CONFIG, (LOW,), (HIGH,)))


def test_gradients_by_hand_are_the_slopes_of_the_losses(batches):
    batch = Transition(*(field[0].astype(np.float64) for field in batches))
    actor, critic = actor_and_critic(perturbed(new_agent(), 0.1))
    y = td_targets(actor, critic, batch, np.random.default_rng(0).normal(0, SIGMA, (len(batch.reward), 1)))
    _, gradient = critic_loss_and_gradient(critic.params, batch, y)
    assert gradient_error(lambda p: critic_loss_and_gradient(p, batch, y)[0], critic.params, gradient, 60) < 1e-6
    _, gradient = actor_loss_and_gradient(actor.params, critic.params, batch)
    slope = gradient_error(lambda p: actor_loss_and_gradient(p, critic.params, batch)[0], actor.params, gradient, 60)
    assert slope < 1e-6


def test_fifty_updates_end_where_td3_in_numpy_ends(batches):
    """The noise on the target's action is drawn as the package draws it; all else is independent."""
    state, hyperparameters = perturbed(new_agent(), 0.05), make_hyperparameters(CONFIG)
    state = jax.tree.map(np.asarray, state)
    reference, clipped, smaller_second = actor_and_critic(state), 0, 0
    algorithm = make_algorithm(CONFIG, (LOW,), (HIGH,))
    for t, batch in enumerate(unstacked(batches), start=1):
        key = jax.random.key(t)
        noise = SIGMA * np.asarray(jax.random.normal(jax.random.split(key, 3)[2], (len(batch.reward), 1), float))
        clipped += (abs(noise) > CLIP).sum()
        first, second = (value(critic_of(reference[1].target, k), batch.observation, batch.action) for k in (0, 1))
        smaller_second += (second < first).sum()
        reference = reference_update(*reference, batch, noise, t)
        state, _ = agent.update(key, state, batch, algorithm=algorithm, hyperparameters=hyperparameters)
    assert min(clipped, smaller_second, 50 * 64 - smaller_second) > 10  # every branch has been taken
    assert max(largest_deviation(state, reference).values()) < 1e-9
