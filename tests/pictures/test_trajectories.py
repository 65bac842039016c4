"""Tests greedy trajectories, and the returns that follow their steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import chain, counter, small_config

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.evaluation import Starts, greedy_episodes
from ddpg_jax.environments.task import Task
from ddpg_jax.pictures import trajectories
from ddpg_jax.pictures.snapshots import Snapshot
from ddpg_jax.pictures.trajectories import Steps
from ddpg_jax.training.setup_factory import make_algorithm


def steps_of(reward, terminated=None, truncated=None) -> Steps:
    """Returns the steps of one agent from one start, in which Q(s, a) is the number of the step."""
    reward = np.asarray(reward, np.float32)[:, None, None]
    ends = [np.arange(len(reward))[:, None, None] == end for end in (terminated, truncated)]
    return Steps(np.arange(len(reward), dtype=np.float32)[:, None, None], reward, *ends)


estimates_and_returns = partial(trajectories.estimates_and_returns, time_limit_terminal=False)


def test_returns_that_follow_are_discounted_and_end_in_a_terminal_state():
    estimate, observed = estimates_and_returns(steps_of([1.0, 2.0, 4.0, 8.0], terminated=2), 0.5, max_steps=4)
    np.testing.assert_array_equal(estimate, [0, 1, 2])
    np.testing.assert_allclose(observed, [1 + 2 / 2 + 4 / 4, 2 + 4 / 2, 4])


def test_rewards_behind_a_time_limit_count_unless_it_was_learned_as_terminal():
    steps = steps_of([1.0, 2.0, 4.0, 8.0], truncated=1)
    estimate, observed = estimates_and_returns(steps, 0.5, max_steps=2)
    np.testing.assert_array_equal(estimate, [0, 1])
    np.testing.assert_allclose(observed, [1 + 2 / 2 + 4 / 4 + 8 / 8, 2 + 4 / 2 + 8 / 4])
    _, observed = estimates_and_returns(steps, 0.5, max_steps=2, time_limit_terminal=True)
    np.testing.assert_allclose(observed, [1 + 2 / 2, 2])


def test_limit_below_the_environments_own_is_the_trainings():
    _, observed = estimates_and_returns(steps_of(np.ones(6)), 0.5, max_steps=3, time_limit_terminal=True)
    np.testing.assert_allclose(observed, [1.75, 1.5, 1])
    assert len(estimates_and_returns(steps_of(np.ones(6)), 0.5, max_steps=3)[0]) == 3


def test_rewards_count_until_they_weigh_a_hundredth():
    found = [trajectories.foresight(discount) for discount in (0.0, 0.1, 0.5, 0.99, 0.9999, 1.0)]
    assert found == [1, 2, 7, 459, 1000, 1000]  # 2^-7 < 0.01 < 2^-6
    np.testing.assert_allclose(estimates_and_returns(steps_of(np.ones(4)), 0.1, max_steps=1)[1], [1.1])


def snapshot_of(algorithm, observation_size):
    states = [agent.init(jax.random.key(i), jnp.zeros(observation_size), algorithm=algorithm) for i in range(2)]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return state, Snapshot(0, state.actor, state.critic)


@pytest.mark.parametrize("environment", [chain((1.0, 2.0, 4.0)), counter(length=3)], ids=lambda each: each.env_id)
def test_toy_episodes_are_played_as_they_are(environment):
    algorithm = make_algorithm(small_config(), environment.low, environment.high)
    state, snapshot = snapshot_of(algorithm, environment.observation_size)
    first = environment.reset(jax.random.key(0))
    starts = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, 4, *x.shape)), Starts(*first, jax.random.key(0)))
    played = trajectories.play(snapshot, starts, environment=environment, algorithm=algorithm, num_steps=5,
                               num_shown=2, keep_state=True)  # fmt: skip
    np.testing.assert_array_equal(trajectories.lengths(played.steps, 100), np.full((2, 4), 3))
    expected = 7.0 if environment.env_id == "chain" else 3.0
    np.testing.assert_array_equal(trajectories.returns(played.steps, 100), np.full((2, 4), expected))
    assert played.action.shape == (5, 2, 2, environment.action_size)
    np.testing.assert_array_equal(played.state, np.arange(5))
    second = jax.tree.map(lambda leaf: leaf[1], state)
    action = agent.act(second, first[1], algorithm=algorithm)
    np.testing.assert_allclose(played.action[0, 1, 0], action, rtol=1e-6)
    np.testing.assert_allclose(
        played.steps.value[0, 1, 0], algorithm.critic.apply(second.critic, first[1][None], action[None])[0], rtol=1e-5
    )


def test_episodes_are_those_of_an_evaluation_with_its_random_numbers():
    """The task's rewards are random."""

    def step(key, state, action):
        return state + 1, Step(jnp.ones(1), jax.random.normal(key), jnp.bool_(False), state >= 2)

    environment = Environment("noisy", 1, (-1.0,), (1.0,), 10, lambda key: (jnp.int32(0), jnp.ones(1)), step)
    task = Task(environment)
    algorithm = make_algorithm(small_config(), environment.low, environment.high)
    state, snapshot = snapshot_of(algorithm, environment.observation_size)
    starts = task.evaluation_starts(3)
    evaluate = partial(greedy_episodes, environment=environment, algorithm=algorithm)
    expected = jax.vmap(evaluate, in_axes=(0, None))(state, starts).returns
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), starts)
    played = trajectories.play(
        snapshot, both, environment=environment, algorithm=algorithm, num_steps=environment.max_steps
    )
    np.testing.assert_allclose(trajectories.returns(played.steps, environment.max_steps), expected, rtol=1e-4)
