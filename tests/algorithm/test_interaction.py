"""Tests how an agent acts and what becomes of a step: noise, stored actions, episodes, environments side by side."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from toy_environments import counter, explored, setup_for, small_config, stored

from ddpg_jax.algorithm import agent, loop, noise, replay
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.training.setup_factory import make_hyperparameters

COUNTER = counter(length=3)
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # x <- x + (1 - x) / 2 from 0, in episodes of two steps
        ({"noise_scale": 2.0, "noise_decay": 0.5}, [1.0, 1.5, 0.875, 0.9375]),
        ({"noise_scale": 0.1, "noise_relative": True}, [1.0, 1.5, 1.75, 1.875]),  # a tenth of the range, 20
        ({"noise_reset": True, "noise_initial": -1.0}, [0.0, 0.5, 0.0, 0.5]),
    ],
)
def test_noise_is_added_in_its_scale_and_starts_anew_where_it_should(changes, expected):
    config = small_config(noise_sigma=0.0, noise_theta=0.5, noise_mean=1.0, **changes)
    rows, state, _ = explored(config, counter(length=2), 4)
    greedy = agent.act(state.agent, rows.observation, algorithm=setup_for(config, COUNTER).algorithm)
    np.testing.assert_allclose((rows.action - greedy)[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize(("reset", "expected"), [(False, [1.0, 2.0, 3.0, 4.0]), (True, [1.0, 2.0, 1.0, 2.0])])
def test_noise_of_another_form_has_a_state_of_its_own(reset, expected):
    counting = noise.Noise(
        init=lambda process, num_actions: {"steps": jnp.int32(0), "size": jnp.ones(num_actions)},
        after=lambda state, shock, process: state | {"steps": state["steps"] + 1},
        value=lambda state: state["steps"] * state["size"],
    )
    config = small_config(noise_reset=reset)
    rows, state, _ = explored(config, counter(length=2), 4, noise=counting)
    greedy = agent.act(state.agent, rows.observation, algorithm=setup_for(config, COUNTER).algorithm)
    np.testing.assert_allclose((rows.action - greedy)[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize(("clip", "expected"), [(True, 10.0), (False, 100.0)])
def test_action_is_stored_as_executed_or_before_clipping(clip, expected):
    config = small_config(noise="gaussian", noise_sigma=0.0, noise_mean=100.0, clip_stored_action=clip)
    rows, _, _ = explored(config, COUNTER, 3)
    np.testing.assert_allclose(rows.action, np.full((3, 1), expected), atol=0.1)


def test_first_steps_are_uniformly_random_and_the_others_are_the_actors():
    environment = counter(length=1000, bound=2.0)
    random, plain = (explored(small_config(random_steps=n, noise_scale=0.0), environment, 500)[0] for n in (400, 0))
    assert scipy.stats.kstest(random.action[:400, 0], scipy.stats.uniform(-2.0, 4.0).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(random.action[400:], plain.action[400:])


# How episodes end


@pytest.mark.parametrize(
    ("environment", "changes", "lengths", "discounts"),
    [
        (counter(length=3), {}, [0, 0, 3, 0, 0, 3], [1, 1, 1, 1, 1, 1]),  # truncated
        (counter(length=3, terminates=True), {}, [0, 0, 3, 0, 0, 3], [1, 1, 0, 1, 1, 0]),
        (counter(length=9, max_steps=2), {}, [0, 2, 0, 2, 0, 2], [1, 1, 1, 1, 1, 1]),  # the environment's own limit
        (counter(length=9), {"max_episode_steps": 2, "time_limit_terminal": True}, [0, 2] * 3, [1, 0] * 3),
    ],
)
def test_episodes_end_and_begin_anew(environment, changes, lengths, discounts):
    rows, state, stats = explored(small_config(**changes), environment, 6)
    assert stats.length.tolist() == lengths
    assert rows.discount.tolist() == discounts
    steps = np.array([max(lengths)] * 6)
    assert rows.observation[:, 0].tolist() == (np.arange(6) % steps).tolist()  # 0 after each reset
    assert rows.next_observation[:, 0].tolist() == (np.arange(6) % steps + 1).tolist()  # never after a reset
    assert stats.total_reward.tolist() == (np.arange(6) % steps + 1).tolist()
    assert int(state.env.episode.number) == np.count_nonzero(lengths)


@pytest.mark.parametrize("terminates", [True, False])
def test_observation_that_is_not_finite_is_stored_only_where_its_value_counts(terminates):
    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(key, state, action):
        end = jnp.bool_(True)
        return state, Step(jnp.full(1, jnp.nan), jnp.float32(1), end & terminates, end & (not terminates))

    rows, _, _ = explored(small_config(), Environment("broken", 1, (-1.0,), (1.0,), 9, reset, step), 2)
    assert np.isnan(rows.next_observation[:, 0]).tolist() == [not terminates] * 2


# Environments side by side


def test_environments_side_by_side_add_a_row_each_and_end_their_own_episodes():
    """In each, the observation is the step of its episode, which ends at a random step."""

    def reset(key):
        return jax.random.randint(key, (), 2, 6), jnp.zeros(1)

    def step(key, left, action):
        place = jnp.asarray(left - 1, jnp.float32)[None]
        return left - 1, Step(place, jnp.float32(2), left <= 1, jnp.bool_(False))

    environment = Environment("fuse", 1, (-1.0,), (1.0,), 100, reset, step)
    config = small_config(
        num_envs=3, replay_capacity=60, noise_sigma=0.05, learning_starts=60, total_steps=60, eval_every=60
    )
    setup, hyperparameters = setup_for(config, environment), make_hyperparameters(config)
    state = loop.init(KEY, hyperparameters, setup=setup)
    state, log = jax.jit(partial(loop.train, setup=setup, max_steps=20))(state, hyperparameters, jnp.int32(20))
    rows = replay.unpack(np.asarray(state.replay.rows), 1)
    assert (int(state.replay.added), int(state.step)) == (60, 20)
    log = loop.unpack_log(np.asarray(log)[None])
    lengths, returns = log.episode_length[0].reshape(20, 3), log.episode_return[0].reshape(20, 3)
    assert len({tuple(lane) for lane in lengths.T}) == 3  # they are independent
    for lane in range(3):
        ends = np.flatnonzero(lengths[:, lane])
        assert np.flatnonzero(rows.discount[lane::3] == 0).tolist() == ends.tolist()
        assert lengths[ends, lane].tolist() == np.diff([-1, *ends]).tolist()
        np.testing.assert_array_equal(returns[ends, lane], 2 * lengths[ends, lane])
        assert (rows.observation[lane::3][ends[:-1] + 1] == 0).all()
    actions = rows.action.reshape(20, 3)
    assert len(np.unique(actions)) == 60  # noise of their own


def test_schedules_count_the_mean_number_of_episodes_of_all_environments():
    """With 2 environments in episodes of 3 steps, the noise of 1 halves after 3 steps, as with one environment."""
    changes = {"noise": "gaussian", "noise_sigma": 0.0, "noise_mean": 1.0, "noise_decay": 0.5, "learning_starts": 50}
    config = small_config(num_envs=2, **changes)
    setup, hyperparameters = setup_for(config, COUNTER), make_hyperparameters(config)
    state = loop.init(KEY, hyperparameters, setup=setup)
    state, _ = jax.jit(partial(loop.train, setup=setup, max_steps=9))(state, hyperparameters, jnp.int32(9))
    rows = stored(state.replay, 1)
    noise = rows.action - np.asarray(agent.act(state.agent, rows.observation, algorithm=setup.algorithm))
    np.testing.assert_allclose(noise[:, 0], [1.0] * 6 + [0.5] * 6 + [0.25] * 6, rtol=1e-4)
