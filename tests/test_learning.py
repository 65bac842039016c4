"""Tests that agents learn: values and actions that are known by hand, and to swing up a pendulum."""

import jax
import numpy as np
from toy_environments import chain, follow, trained, treadmill

import ddpg_jax
from ddpg_jax.algorithm import agent
from ddpg_jax.config import Config


def toy_config(**changes) -> Config:
    """Small networks that learn within some hundred steps."""
    small = Config(
        hidden_sizes=(16,), batch_size=16, replay_capacity=500, actor_lr=0.001, critic_lr=0.02, tau=0.1, gamma=0.5,
        noise="gaussian", noise_relative=True, noise_sigma=0.3,
    )  # fmt: skip
    return small.replace(**changes)


# Values


def values(setup, agents, observations) -> np.ndarray:
    """What the critic of the first agent has learned to expect of the action 0 in each of the observations."""
    critic = {"params": jax.tree.map(lambda x: x[0], agents.critic["params"])}
    return np.asarray(setup.algorithm.critic.apply(critic, observations, np.zeros((len(observations), 1))))


def test_critic_discounts_what_comes_later_up_to_the_terminal_state():
    setup, agents = trained(toy_config(gamma=0.8), chain((0.0, 0.0, 1.0)), 1000)
    np.testing.assert_allclose(values(setup, agents, np.eye(3)), [0.8 * 0.8, 0.8, 1.0], atol=0.05)


def test_a_time_limit_does_not_end_the_future():
    """Of a reward of 1 per step the value is 1 + gamma + gamma^2 + … = 1 / (1 - gamma), however short the episodes."""
    setup, agents = trained(toy_config(gamma=0.6), treadmill(), 500)
    np.testing.assert_allclose(values(setup, agents, np.ones((1, 1))), [2.5], atol=0.05)


# Actions. Episodes are one step long, and from one to the next the noise and the learning rates shrink. A critic of
# ReLUs bends where it happens to bend, so the median of a few agents is held to the target.
SHRINKING = {"hidden_sizes": (32, 32), "batch_size": 32, "critic_lr": 0.01, "lr_decay": 0.999, "noise_decay": 0.9985}


def greedy(setup, agents, observations) -> np.ndarray:
    """Returns the agents' actions [N, B, A]."""
    return np.asarray(jax.vmap(lambda state: agent.act(state, observations, algorithm=setup.algorithm))(agents))


def test_actor_learns_two_actions_that_depend_on_what_it_sees():
    setup, agents = trained(toy_config(**SHRINKING), follow(), 2000, num_agents=3)
    places = np.linspace(-0.9, 0.9, 7)[:, None]
    errors = np.abs(greedy(setup, agents, places) - places * [0.5, -1.0])
    assert (np.median(errors, axis=0) < 0.2).all()


# Pendulum


def test_default_preset_keeps_the_pendulum_up():
    """32 agents fall short of the optimum by 5 to 10; one that does nothing, by about 1,000."""
    result = ddpg_jax.train("pendulum", seeds=2, progress=False)
    assert result.summary.final_shortfall.largest < 30
