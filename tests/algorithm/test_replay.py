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
    entries = 100.0 * number + np.arange(2 * OBS + ACT + 2, dtype=np.float32)
    return Transition(
        jnp.asarray(entries[:OBS]),
        jnp.asarray(entries[OBS : OBS + ACT]),
        jnp.asarray(entries[OBS + ACT]),
        jnp.asarray(entries[OBS + ACT + 1]),
        jnp.asarray(entries[OBS + ACT + 2 :]),
    )


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


def chi_square_of_distinct_pairs(first: np.ndarray, second: np.ndarray, size: int) -> float:
    """Returns the same for ordered pairs of two different numbers below `size`."""
    return chi_square(first * (size - 1) + second - (second > first), size * (size - 1))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(-1000, 1000), min_size=1, max_size=25))
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


@partial(jax.jit, static_argnames="sampler")
def _hundred_samples(keys, ring, sampler):
    return jax.vmap(lambda key: replay.sample(key, ring, 3, ACT, sampler))(keys)


@pytest.mark.parametrize("sampler", [replay.with_replacement, replay.without_replacement])
@pytest.mark.parametrize(("num", "expected"), [(3, {1, 2, 3}), (8, set(range(1, 9))), (11, set(range(4, 12)))])
def test_only_transitions_that_it_holds_are_sampled(sampler, num, expected):
    batch = _hundred_samples(jax.random.split(jax.random.key(1), 100), filled(8, num), sampler)
    assert set((np.asarray(batch.reward) // 100).ravel().tolist()) == expected
    whole = {tuple(np.concatenate([np.atleast_1d(field) for field in transition(number)])) for number in expected}
    flat = Transition(*(np.asarray(field).reshape(300, -1) for field in batch))
    assert set(map(tuple, np.concatenate(list(flat), axis=1))) == whole


def test_agents_that_share_the_counter_keep_rows_of_their_own():
    axes = Replay(rows=0, added=None)
    ring = Replay(jnp.zeros((3, 4, 2 * OBS + ACT + 2)), jnp.int32(0))
    group_add = jax.jit(jax.vmap(replay.add, (axes, 0), axes))
    for number in range(1, 7):
        batch = jax.tree.map(lambda *x: jnp.stack(x), *(transition(10 * agent + number) for agent in range(3)))
        ring = group_add(ring, batch)
    assert ring.added.shape == ()
    keys = jax.random.split(jax.random.key(0), 3)
    rows = jax.vmap(lambda key, ring: replay.sample(key, ring, 4, ACT, every_row), (0, axes))(keys, ring)
    for agent in range(3):
        expected = [[np.asarray(field).tolist() for field in transition(10 * agent + n)] for n in (5, 6, 3, 4)]
        assert as_lists(jax.tree.map(lambda x, agent=agent: x[agent], rows)) == expected
    drawn = jax.vmap(lambda key, ring: replay.sample(key, ring, 64, ACT, replay.with_replacement), (0, axes))(
        keys, ring
    )
    chosen = np.asarray(drawn.reward) // 100 - 10 * np.arange(3)[:, None]
    assert [set(row) for row in chosen.tolist()] == [{3, 4, 5, 6}] * 3
    assert (chosen[0] != chosen[1]).any()


@jax.jit
def _three_indices(keys, size):
    return jax.vmap(lambda key: replay.with_replacement(key, 3, size))(keys)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 37])
def test_indices_with_replacement_are_uniform_and_independent(size):
    indices = np.asarray(_three_indices(jax.random.split(jax.random.key(size), 20_000), jnp.int32(size)))
    assert indices.min() == 0
    assert indices.max() == size - 1
    if size > 1:
        assert chi_square(indices.ravel(), size) > 1e-3
        assert chi_square(indices[:, 1] * size + indices[:, 2], size**2) > 1e-3


@jax.jit
def _three_distinct(keys, size):
    return jax.vmap(lambda key: replay.without_replacement(key, 3, size))(keys)


@pytest.mark.parametrize("size", [3, 4, 5, 7, 8, 9, 16, 17, 33])
def test_indices_without_replacement_are_uniform_and_so_are_ordered_pairs(size):
    indices = np.asarray(_three_distinct(jax.random.split(jax.random.key(size), 20_000), jnp.int32(size)))
    for position in range(3):
        assert chi_square(indices[:, position], size) > 1e-3
    for first, second in [(0, 1), (1, 2), (2, 0)]:
        assert chi_square_of_distinct_pairs(indices[:, first], indices[:, second], size) > 1e-3


def test_chi_square_sees_an_uneven_sampler():
    uneven = jax.random.randint(jax.random.key(0), (20_000,), 0, 2**7) % 33  # 29 … 32 come 3 times in 128, not 4
    assert chi_square(np.asarray(uneven), 33) < 1e-6


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, 64])
def test_indices_without_replacement_are_distinct_and_within_the_size(batch_size):
    draw = jax.jit(jax.vmap(lambda key, size: replay.without_replacement(key, batch_size, size), (0, None)))
    keys = jax.random.split(jax.random.key(0), 30)
    powers = [2**i + j for i in range(17) for j in (-1, 0, 1)]
    for size in sorted({size for size in (batch_size, batch_size + 1, *powers, 50_000, 2**30) if size >= batch_size}):
        indices = np.asarray(draw(keys, jnp.int32(size)))
        assert indices.min() >= 0, size
        assert indices.max() < size
        assert all(len(set(row)) == batch_size for row in indices.tolist()), size


def test_indices_without_replacement_depend_on_the_key():
    indices = np.asarray(_three_distinct(jax.random.split(jax.random.key(0), 50), jnp.int32(50_000)))
    assert len({tuple(row) for row in indices.tolist()}) == 50
    assert indices.max() > 40_000


def test_a_transition_of_wrong_rank_is_refused():
    ring = replay.init(4, OBS, ACT)
    for field, value in [("reward", jnp.zeros(1)), ("observation", jnp.zeros((1, OBS))), ("discount", jnp.zeros(1))]:
        with pytest.raises(AssertionError):
            replay.add(ring, transition(0)._replace(**{field: value}))


def test_capacity_below_one_is_refused():
    with pytest.raises(ValueError, match="capacity is 0, but must be at least 1"):
        replay.init(0, OBS, ACT)
