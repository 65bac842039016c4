"""Compares n-step windows of the replay with a plain loop over the steps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_environments import small_config

from ddpg_jax.algorithm.n_step import NStep
from ddpg_jax.algorithm.types import Replay
from ddpg_jax.training.setup_factory import make_hyperparameters


def window(steps, first, n, gamma):
    """(reward, discount of the next value, next observation) of the steps from `first` on.

    A step is (observation, reward, terminal, cut off, next observation).
    """
    total, factor = 0.0, 1.0
    for step in steps[first : first + n]:
        _, reward, terminal, cut, following = step
        total += factor * reward
        factor *= gamma
        if terminal:
            return total, 0.0, following
        if cut:
            break
    return total, factor, following


@st.composite
def histories(draw):
    """Episodes one after another, whose observations are all different, and a capacity that may be smaller."""
    steps, now = [], 0.0
    for _ in range(draw(st.integers(1, 30))):
        ends = draw(st.sampled_from(["goes on", "goes on", "goes on", "terminal", "cut"]))
        steps.append((now, draw(st.integers(-5, 5)), ends == "terminal", ends == "cut", now + 1.0))
        now += 1.0 if ends == "goes on" else 2.0
    capacity, n = draw(st.sampled_from([1, 8, 40])), draw(st.sampled_from([1, 2, 5, 12]))  # few programs to compile
    return steps, capacity, n, draw(st.sampled_from([0.0, 0.5, 0.99, 1.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(histories(), min_size=1, max_size=3))
def test_windows_are_those_of_a_plain_loop_in_one_or_several_environments(drawn):
    lanes, (_, capacity, n, gamma) = [steps for steps, *_ in drawn], drawn[0]
    num_steps, num_envs = min(map(len, lanes)), len(drawn)
    rows = np.zeros((capacity * num_envs, 5), np.float32)
    for step, e in itertools.product(range(num_steps), range(num_envs)):
        observation, reward, terminal, _, following = lanes[e][step]
        row = (observation + 100 * e, 0.0, reward, 1.0 - terminal, following + 100 * e)
        rows[(step * num_envs + e) % len(rows)] = row
    ring = Replay(jnp.asarray(rows), jnp.int32(num_steps * num_envs))
    held = [(step, e) for step in range(max(0, num_steps - capacity), num_steps) for e in range(num_envs)]
    indices = np.zeros(3 * 40, np.int32)  # of which those that are held are looked at
    indices[: len(held)] = [(step * num_envs + e) % (capacity * num_envs) for step, e in held]
    hyperparameters = make_hyperparameters(small_config(gamma=gamma))
    batch = jax.device_get(NStep(n, num_envs)(ring, jnp.asarray(indices), 1, hyperparameters))
    for i, (step, e) in enumerate(held):
        total, factor, following = window(lanes[e][:num_steps], step, n, gamma)
        assert float(batch.observation[i, 0]) == lanes[e][step][0] + 100 * e
        assert float(batch.reward[i]) == pytest.approx(total, abs=1e-4)
        assert gamma * float(batch.discount[i]) == pytest.approx(factor, abs=1e-6)
        assert float(batch.next_observation[i, 0]) == following + 100 * e
