"""Compares the ring of transitions with a deque, and the samplers with uniform draws."""

from collections import deque
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toy_environments import every_row, small_config

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.types import Replay, Transition
from ddpg_jax.training.setup_factory import make_hyperparameters

OBS, ACT = 3, 2
add = jax.jit(replay.add)


@partial(jax.jit, static_argnames="num")
def listed(ring: Replay, num: int) -> Transition:
    """Returns the first transitions of a replay, in the order of its rows."""
    return replay.sample(jax.random.key(0), ring, num, ACT, every_row)


def transition(number: float) -> Transition:
    """Returns a transition in which every entry identifies the transition and the entry."""
    entries = jnp.asarray(100.0 * number + np.arange(2 * OBS + ACT + 2), jnp.float32)
    observation, action, (reward, discount), next_observation = jnp.split(entries, [OBS, OBS + ACT, OBS + ACT + 2])
    return Transition(observation, action, reward, discount, next_observation)


def filled(capacity: int, num: int) -> Replay:
    """Returns a replay to which the transitions 1 to num were added."""
    ring = replay.init(capacity, OBS, ACT)
    for number in range(1, num + 1):
        ring = add(ring, transition(number))
    return ring


def as_lists(batch: Transition) -> list[list]:
    """Returns a minibatch's transitions, each as a list of its five fields."""
    return [[np.asarray(field[i]).tolist() for field in batch] for i in range(len(batch.reward))]


def chi_square(cells: np.ndarray, num: int) -> float:
    """Returns the p-value of the hits on cells 0 … num-1, if all cells are equally likely."""
    return stats.chisquare(np.bincount(cells, minlength=num)).pvalue


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(-1000, 1000), min_size=1, max_size=25))
def test_replay_holds_what_a_deque_of_its_capacity_holds(capacity, numbers):
    ring, held = replay.init(capacity, OBS, ACT), deque(maxlen=capacity)
    for number in numbers:
        ring = add(ring, transition(number))
        held.append([np.asarray(field).tolist() for field in transition(number)])
        assert sorted(as_lists(listed(ring, len(held)))) == sorted(held)
    assert int(ring.added) == len(numbers)


def test_several_transitions_at_once_are_added_in_their_order():
    one_by_one, together = filled(4, 6), replay.init(4, OBS, ACT)
    for first in (1, 3, 5):
        pair = jax.tree.map(lambda *x: jnp.stack(x), transition(first), transition(first + 1))
        together = replay.add_all(together, pair)
    np.testing.assert_array_equal(together.rows, one_by_one.rows)
    assert int(together.added) == 6
    assert [int(replay.size_after(one_by_one._replace(added=3), num)) for num in (0, 1, 2)] == [3, 4, 4]


def test_scaled_rewards_are_scaled_only_in_the_minibatch():
    ring = filled(8, 1)
    hyperparameters = make_hyperparameters(small_config(reward_scale=0.25))
    batch = replay.Rescaled(replay.read)(ring, jnp.zeros(3, int), ACT, hyperparameters)
    np.testing.assert_array_equal(batch.reward, [0.25 * transition(1).reward] * 3)
    np.testing.assert_array_equal(ring.rows[0], filled(8, 1).rows[0])


@pytest.mark.parametrize(("num", "expected"), [(3, {1, 2, 3}), (11, set(range(4, 12)))])
def test_only_transitions_that_it_holds_are_sampled(num, expected):
    ring = filled(8, num)
    sample = jax.jit(jax.vmap(lambda key: replay.sample(key, ring, 3, ACT, replay.with_replacement)))
    batch = sample(jax.random.split(jax.random.key(1), 100))
    seen = as_lists(jax.tree.map(lambda field: field.reshape(300, *field.shape[2:]), batch))
    whole = [[np.asarray(field).tolist() for field in transition(number)] for number in expected]
    assert sorted(map(str, whole)) == sorted(set(map(str, seen)))


@partial(jax.jit, static_argnames="sampler")
def three_indices(keys, size, sampler):
    return jax.vmap(lambda key: sampler(key, 3, size))(keys)


@pytest.mark.parametrize("sampler", [replay.with_replacement, replay.without_replacement])
@pytest.mark.parametrize("size", [3, 5, 8, 17, 33])
def test_indices_are_uniform_and_so_are_ordered_pairs(sampler, size):
    indices = np.asarray(three_indices(jax.random.split(jax.random.key(size), 20_000), jnp.int32(size), sampler))
    assert (indices.min(), indices.max()) == (0, size - 1)
    for i in range(3):
        first, second = indices[:, i], indices[:, (i + 1) % 3]
        assert chi_square(first, size) > 1e-3
        if sampler is replay.with_replacement:
            assert chi_square(first * size + second, size**2) > 1e-3
        else:  # pairs of two different numbers
            assert chi_square(first * (size - 1) + second - (second > first), size * (size - 1)) > 1e-3


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_indices_without_replacement_are_distinct_and_within_the_size(batch_size):
    draw = jax.jit(jax.vmap(lambda key, size: replay.without_replacement(key, batch_size, size), (0, None)))
    keys = jax.random.split(jax.random.key(0), 30)
    powers = [2**i + j for i in range(17) for j in (-1, 0, 1)]
    for size in sorted({size for size in (batch_size, batch_size + 1, *powers, 50_000, 2**30) if size >= batch_size}):
        indices = np.asarray(draw(keys, jnp.int32(size)))
        assert indices.min() >= 0, size
        assert indices.max() < size
        assert all(len(set(row)) == batch_size for row in indices.tolist()), size
