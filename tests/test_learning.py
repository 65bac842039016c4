"""Tests that agents learn: values and actions that are known by hand, and to swing up a pendulum."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import aim, chain, follow, trained, treadmill

from ddpg_jax.algorithm import agent, evaluation
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make_task
from ddpg_jax.presets import PRESETS


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


def test_critic_discounts_what_comes_later():
    setup, agents = trained(toy_config(gamma=0.8), chain((0.0, 0.0, 1.0)), 1000)
    np.testing.assert_allclose(values(setup, agents, np.eye(3)), [0.8 * 0.8, 0.8, 1.0], atol=0.05)


@pytest.mark.parametrize(
    ("terminates", "time_limit_terminal", "value"),
    # one step of reward 1 after which nothing comes, or 1 + gamma + gamma^2 + … = 1 / (1 - gamma) = 2.5
    [(True, False, 1.0), (False, False, 2.5), (False, True, 1.0)],
)
def test_termination_ends_the_future_and_a_time_limit_does_not(terminates, time_limit_terminal, value):
    config = toy_config(gamma=0.6, time_limit_terminal=time_limit_terminal)
    setup, agents = trained(config, treadmill(terminates=terminates), 500)
    np.testing.assert_allclose(values(setup, agents, np.ones((1, 1))), [value], atol=0.05)


# Actions. Episodes are one step long, and from one to the next the noise and the learning rates shrink. A critic of
# ReLUs bends where it happens to bend, so the median of a few agents is held to the target.
SHRINKING = {"hidden_sizes": (32, 32), "batch_size": 32, "critic_lr": 0.01, "lr_decay": 0.999, "noise_decay": 0.9985}


def greedy(setup, agents, observations) -> np.ndarray:
    """Returns the agents' actions [N, B, A]."""
    return np.asarray(jax.vmap(lambda state: agent.act(state, observations, algorithm=setup.algorithm))(agents))


@pytest.mark.parametrize(
    ("target", "low", "high", "action_bound"),
    [(2.0, -1.0, 3.0, "tanh"), (-3.0, -3.5, 0.0, "sigmoid")],
)
def test_actor_learns_the_action_that_is_rewarded_most(target, low, high, action_bound):
    config = toy_config(**SHRINKING, action_bound=action_bound)
    setup, agents = trained(config, aim((target,), (low,), (high,)), 1500, num_agents=7)
    errors = np.abs(greedy(setup, agents, np.ones((1, 1))) - target).ravel()
    assert np.median(errors) < 0.1
    assert abs((low + high) / 2 - target) >= 1  # where the actors started


def test_actor_learns_two_actions_that_depend_on_what_it_sees():
    setup, agents = trained(toy_config(**SHRINKING), follow(), 2000, num_agents=5)
    places = np.linspace(-0.9, 0.9, 7)[:, None]
    errors = np.abs(greedy(setup, agents, places) - places * [0.5, -1.0])
    assert (np.median(errors, axis=0) < 0.2).all()


# Pendulum


def test_default_preset_keeps_the_pendulum_up():
    task = make_task("Pendulum-v1")
    setup, agents = trained(PRESETS["pendulum"], task.environment, 6000, num_agents=4)
    evaluate = partial(evaluation.greedy_episodes, environment=task.environment, algorithm=setup.algorithm)
    returns = jax.jit(jax.vmap(evaluate, (0, None)))(agents, task.evaluation_starts(64)).returns.mean(axis=1)
    # From these states the optimum is -129.5. 32 agents measured had -134 to -139; an idle one has about -1200.
    assert float(jnp.min(returns)) > -160
