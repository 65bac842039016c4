"""Tests greedy episodes, films and checks on the host in environments whose values are known by hand."""

from functools import partial

import numpy as np
import pytest

from ddpg_jax.algorithm import host_env
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.evaluation import Starts
from ddpg_jax.environments.adapt import adapt
from ddpg_jax.environments.host import HostEnvFailure, film, host_greedy_episodes


class Clocks:
    """Observe (seed, steps so far). Reward: seed + action. An episode from seed s terminates after s + 1 steps."""

    def __init__(self, num):
        self.seed, self.steps, self.closed, self.log = np.zeros(num), np.zeros(num), False, []

    def __len__(self):
        return len(self.seed)

    def begin(self, indices, starts):
        self.steps[indices] = 0
        self.seed[indices] = 0 if starts is None else starts
        return self.see()[indices]

    def step(self, actions, active):
        self.log.append(active.copy())
        self.steps += active
        reward = np.where(active, self.seed + actions[:, 0], 0.0)
        return Step(self.see(), reward, active & (self.steps > self.seed), np.zeros(len(self), bool))

    def render(self, index):
        return np.full((2, 2, 3), self.steps[index], np.uint8)

    def see(self):
        return np.stack([self.seed, self.steps], axis=1).astype(np.float32)

    def close(self):
        self.closed = True


class Clock:
    """Makes clocks, and remembers them (`HostEnv`)."""

    def __init__(self, kind=Clocks):
        self.kind, self.made = kind, []

    def make(self, num, max_steps=None):
        self.made.append(self.kind(num))
        return self.made[-1]


def clock(max_steps=100, kind=Clocks):
    reset = partial(host_env.reset, observation_size=2, action_size=1)
    return Environment("clock", 2, (-1.0,), (1.0,), max_steps, reset, None, host_env=Clock(kind))


def starts_at(*seeds):
    return Starts(np.array(seeds, np.uint32), np.zeros((len(seeds), 2), np.float32), None)


def act(observations):
    """Agent i acts with i / 2; all are at the upper bound in the second step of an episode."""
    num, width, _ = observations.shape
    actions = np.broadcast_to(np.arange(num, dtype=np.float32)[:, None, None] / 2, (num, width, 1))
    return np.where(observations[..., 1:] == 1, np.float32(1), actions)


@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_greedy_episodes_do_not_depend_on_how_many_run_at_a_time(width):
    envs = Clocks(2 * width)
    episodes = host_greedy_episodes(act, envs, starts_at(3, 0, 1, 2), 2, clock())
    # seed s: s + 1 steps with a reward of s each, and the actions: i / 2 except 1 in the second step
    assert episodes.returns.tolist() == [[13.0, 0.0, 3.0, 7.0], [14.5, 0.5, 3.5, 8.0]]
    np.testing.assert_allclose(episodes.share_at_bounds, [[1 / 4, 0, 1 / 2, 1 / 3]] * 2, rtol=1e-6)
    assert episodes.returns.dtype == np.float32
    assert sum(active.sum() for active in envs.log) == 2 * (4 + 1 + 2 + 3)  # no step is wasted


def test_greedy_episodes_end_at_the_time_limit_and_with_actions_that_are_no_numbers():
    episodes = host_greedy_episodes(act, Clocks(1), starts_at(50, 2), 1, clock(max_steps=5))
    assert episodes.returns.tolist() == [[5 * 50 + 1, 3 * 2 + 1]]
    episodes = host_greedy_episodes(lambda seen: act(seen) * np.nan, Clocks(1), starts_at(2), 1, clock())
    assert episodes.returns.tolist() == [[6.0]]


@pytest.mark.parametrize(("every", "frames"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3]), (9, [0])])
def test_film_shows_every_nth_step_of_the_first_start_state(every, frames):
    task = clock()
    drawn = film(lambda observation: observation[:1] * 0, task.host_env, starts_at(2, 5), every)
    assert [int(frame[0, 0, 0]) for frame in drawn] == frames
    assert [envs.closed for envs in task.host_env.made] == [True]


def test_check_makes_two_steps_and_closes():
    environment = clock()
    assert adapt(environment).environment is environment
    (envs,) = environment.host_env.made
    assert (len(envs.log), envs.closed) == (2, True)


class Wide(Clocks):
    def see(self):
        return np.zeros((len(self), 3), np.float32)


class Broken(Clocks):
    def step(self, actions, active):
        raise HostEnvFailure("step of 'clock' raises OSError: no port") from OSError("no port")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Wide, r"observation of 'clock' has 3 numbers, but must have 2"),
        (Broken, r"^step of 'clock' raises OSError: no port, but reset\(seed=...\) must return"),
    ],
)
def test_environment_that_fails_its_check_is_refused_and_closed(kind, message):
    environment = clock(kind=kind)
    with pytest.raises(ValueError, match=message):
        adapt(environment)
    assert environment.host_env.made[0].closed
