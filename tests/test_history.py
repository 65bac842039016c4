"""The host's measurements: what is averaged over an interval, what a diverged agent leaves, and what the tables say."""

import numpy as np
import pytest

from ddpg_jax.algorithm.types import StepLog
from ddpg_jax.config import Config
from ddpg_jax.results.history import History, Metrics
from ddpg_jax.results.tables import episodes_csv, metrics_csv

CONFIG = Config(learning_starts=4, batch_size=2, replay_capacity=10, train_every=1, updates_per_train=2)
"""From the fourth step on, each step makes two updates."""


def log(num_agents, num_steps, **fields):
    """A chunk in which nothing happened, except in the given fields."""
    entries = {name: np.zeros((num_agents, num_steps), np.float32) for name in StepLog._fields}
    return StepLog(**entries | {name: np.array(values, np.float32) for name, values in fields.items()})


def test_losses_are_averaged_over_the_updates_of_the_interval():
    """Steps 4 and 5 make two updates each; the interval after them has one step, with two."""
    history = History(CONFIG, 1)
    history.add_chunk(log(1, 3))
    history.add_chunk(log(1, 2, critic_loss=[[6.0, 10.0]], q_mean=[[-4.0, 0.0]]))
    history.add_evaluation(np.array([-1.5]))
    history.add_chunk(log(1, 1, critic_loss=[[3.0]]))
    history.add_evaluation(np.array([-1.0]))
    assert history.evaluation_steps.tolist() == [5, 6]
    assert history.updates.tolist() == [4, 6]
    assert history.metrics.eval_return.tolist() == [[-1.5], [-1.0]]
    assert history.metrics.critic_loss.tolist() == [[4.0], [1.5]]
    assert history.metrics.q_mean.tolist() == [[-1.0], [0.0]]


def test_training_return_is_averaged_over_the_episodes_that_ended_in_the_interval():
    history = History(CONFIG, 2)
    history.add_chunk(log(2, 3, episode_length=[[2, 0, 0], [0, 0, 0]], episode_return=[[-7, -1, -2], [-1, -2, -3]]))
    history.add_chunk(log(2, 2, episode_length=[[0, 3], [0, 0]], episode_return=[[-3, -4], [-4, -5]]))
    history.add_evaluation(np.zeros(2))
    np.testing.assert_array_equal(history.last_rows().train_return, [(-7 - 4) / 2, np.nan])


def test_interval_without_updates_has_no_losses():
    history = History(CONFIG, 1)
    history.add_chunk(log(1, 3))
    history.add_evaluation(np.array([2.0]))
    assert [bool(np.isnan(column[0])) for column in history.last_rows()] == [False, True, True, True, True]


def test_evaluations_of_a_diverged_agent_are_empty_from_when_it_was_known():
    history = History(CONFIG, 2)
    history.add_chunk(log(2, 4))
    history.add_evaluation(np.array([1.0, 2.0]))
    history.add_chunk(log(2, 2, critic_loss=[[0.0, np.inf], [0.0, 0.0]]))
    assert history.stopped_positions().tolist() == []  # it learns until the next evaluation
    history.add_evaluation(np.array([3.0, 4.0]))
    assert history.diverged == {0: 6}
    assert history.is_finite().tolist() == [False, True]
    assert history.stopped_positions().tolist() == [0]
    np.testing.assert_array_equal(history.metrics.eval_return, [[1.0, 2.0], [np.nan, 4.0]])
    assert all(np.isnan(column[0]) for column in history.last_rows())


def test_agent_that_diverged_at_its_last_evaluation_keeps_its_row_but_has_no_return():
    """Infinite parameters are seen after the last evaluation, whose row is written already."""
    history = History(CONFIG, 1, first_agent=3)
    history.add_chunk(log(1, 5))
    history.add_evaluation(np.array([-2.0]))
    history.diverged[3] = 5
    assert np.isnan(history.greedy_returns()[1]).all()
    assert metrics_csv([history]).splitlines()[1] == "3,5,4,-2,,0,0,0"


def test_episodes_after_a_divergence_are_left_out():
    history = History(CONFIG, 1)
    ended = history.add_chunk(log(1, 6, episode_length=[[0, 2, 0, 2, 0, 2]], actor_loss=[[0, 0, 0, 0, np.nan, 0]]))
    assert ended.env_steps.tolist() == [2, 4]


def test_training_returns_are_in_the_order_of_each_agents_episodes():
    history = History(CONFIG, 3, first_agent=10)
    lengths = np.array([[1, 1], [0, 1], [0, 1]])
    for first in (0, 10):
        returns = first + np.array([[1, 2], [0, 3], [0, np.nan if first else 4]])
        history.add_chunk(log(3, 2, episode_length=lengths, episode_return=returns))
    assert [returns.tolist() for returns in history.training_returns()] == [[1, 2, 11, 12], [3, 13]]


@pytest.mark.parametrize("num_agents", [0, 2])
def test_history_continues_from_its_arrays_in_the_middle_of_an_interval(num_agents):
    whole, first = History(CONFIG, num_agents), History(CONFIG, num_agents)
    chunks = [
        log(num_agents, 2, critic_loss=np.full((num_agents, 2), i), episode_length=np.full((num_agents, 2), 1))
        for i in range(6)
    ]
    for chunk in chunks[:3]:
        first.add_chunk(chunk)
    first.add_evaluation(np.zeros(num_agents))
    first.add_chunk(chunks[3])
    second = History.from_arrays(first.to_arrays(), CONFIG)
    for history, rest in ((whole, chunks), (second, chunks[4:])):
        for chunk in rest:
            history.add_chunk(chunk)
            if history.env_steps in (6, 12):
                history.add_evaluation(np.zeros(num_agents))
    arrays, expected = second.to_arrays(), whole.to_arrays()
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_process_without_agents_can_be_stopped_right_before_an_evaluation():
    history = History(CONFIG, 0)
    history.add_chunk(log(0, 4))
    resumed = History.from_arrays(history.to_arrays(), CONFIG)
    resumed.add_evaluation(np.zeros(0))
    assert resumed.metrics.eval_return.shape == (1, 0)
    assert [column.shape for column in resumed.metrics] == [(1, 0) for _ in Metrics._fields]


def test_tables_are_sorted_by_step_and_agent_and_hold_nine_digits():
    """Of two waves, the first of which has been evaluated twice; in a sweep of two seeds per point."""
    waves = [History(CONFIG, 2), History(CONFIG, 2, first_agent=2, noise_scale=np.array([0.1, 0.2]))]
    for wave, num_chunks in zip(waves, (2, 1), strict=True):
        for _ in range(num_chunks):
            wave.add_chunk(log(2, 5, episode_length=[[0, 0, 0, 0, 5]] * 2, episode_return=[[0, 0, 0, 0, 1 / 3]] * 2))
            wave.add_evaluation(np.array([1 / 3, -1e-12]) * wave.env_steps)
    lines = metrics_csv(waves, num_seeds=2).splitlines()
    assert lines[0] == "agent,point,seed,env_steps,updates,eval_return,train_return,critic_loss,actor_loss,q_mean"
    assert [line.split(",")[:5] for line in lines[1:]] == [
        [*"0005", "4"], [*"1015", "4"], [*"2105", "4"], [*"3115", "4"],
        [*"000", "10", "14"], [*"101", "10", "14"],
    ]  # fmt: skip
    assert lines[1].split(",")[5:] == ["1.66666667", "0.333333343", "0", "0", "0"]
    assert lines[2].split(",")[5] == "-5e-12"
    episodes = episodes_csv(waves).splitlines()
    assert episodes[0] == "agent,episode,env_steps,return,length,noise_scale"
    assert episodes[3] == "2,0,5,0.333333343,5,0.1"
    assert [line.split(",")[:3] for line in episodes[1:]] == [
        ["0", "0", "5"], ["1", "0", "5"], ["2", "0", "5"], ["3", "0", "5"], ["0", "1", "10"], ["1", "1", "10"]
    ]  # fmt: skip
