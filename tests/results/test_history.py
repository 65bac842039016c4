"""The host's measurements: what is averaged over an interval, what a diverged agent leaves, and how they are kept."""

import numpy as np
import pytest
from made_up import log

from ddpg_jax.results.history import History


def test_losses_are_averaged_over_the_updates_of_the_interval_and_clipped_targets_over_all():
    """Four updates up to the first evaluation, two after it."""
    history = History(np.arange(1))
    assert np.isnan(history.clipped_targets()).all()
    history.add_chunk(log(1, 3))
    history.add_chunk(log(1, 2, critic_loss=[[6.0, 10.0]], q_mean=[[-4.0, 0.0]], clipped_targets=[[1.0, 0.0]]))
    history.add_evaluation(np.array([-1.5]), 4)
    history.add_chunk(log(1, 1, critic_loss=[[3.0]], clipped_targets=[[2.0]]))
    last = history.add_evaluation(np.array([-1.0]), 6)
    assert (history.evaluation_steps.tolist(), history.updates.tolist()) == ([5, 6], [[4], [6]])
    assert history.metrics.eval_return.tolist() == [[-1.5], [-1.0]]
    assert history.metrics.critic_loss.tolist() == [[4.0], [1.5]]
    assert history.metrics.q_mean.tolist() == [[-1.0], [0.0]]
    assert (last.critic_loss.tolist(), history.clipped_targets().tolist()) == ([1.5], [0.5])


def test_training_return_is_averaged_over_the_episodes_that_ended_in_the_interval():
    history = History(np.arange(2))
    history.add_chunk(log(2, 3, episode_length=[[2, 0, 0], [0, 0, 0]], episode_return=[[-7, -1, -2], [-1, -2, -3]]))
    history.add_chunk(log(2, 2, episode_length=[[0, 3], [0, 0]], episode_return=[[-3, -4], [-4, -5]]))
    metrics = history.add_evaluation(np.zeros(2), 0)
    np.testing.assert_array_equal(metrics.train_return, [(-7 - 4) / 2, np.nan])
    assert np.isnan(metrics.critic_loss).all()  # without updates


def test_evaluations_of_a_diverged_agent_are_empty_from_when_it_was_known():
    """The second agent's infinite parameters are seen after the last evaluation, whose row is written already."""
    history = History(np.arange(2))
    history.add_chunk(log(2, 4))
    history.add_evaluation(np.array([1.0, 2.0]), 1)
    history.add_chunk(log(2, 2, critic_loss=[[0.0, np.inf], [0.0, 0.0]]))
    assert history.frozen().tolist() == []  # it learns until the next evaluation
    last = history.add_evaluation(np.array([3.0, 4.0]), 3)
    assert history.diverged == {0: 6}
    assert history.is_finite().tolist() == [False, True]
    assert history.frozen().tolist() == [0]
    np.testing.assert_array_equal(history.metrics.eval_return, [[1.0, 2.0], [np.nan, 4.0]])
    assert all(np.isnan(column[0]) for column in last)
    history.diverged[1] = 6
    np.testing.assert_array_equal(history.greedy_returns()[1], [[1.0, 2.0], [np.nan, np.nan]])


def test_divergence_of_several_environments_is_counted_in_environment_steps():
    """A loss belongs to the first of the steps that the environments make together."""
    history = History(np.arange(2), num_envs=3)
    history.add_chunk(log(2, 2, 3, actor_loss=[[0, np.nan], [0, 0]], episode_return=[[0] * 6, [0] * 5 + [np.inf]]))
    assert history.diverged == {0: 4, 1: 6}
    assert history.env_steps == 6


def test_noise_is_scaled_down_once_for_the_episodes_of_all_environments():
    """Two environments: episodes 0 and 1 have the first scale, 2 and 3 the second."""
    history = History(np.arange(1), num_envs=2, noise_scale=np.array([0.4]), noise_decay=np.array([0.5]))
    scales = [history.add_chunk(log(1, 2, 2, episode_length=[[0, 2, 2, 0]])).noise_scale.tolist() for _ in range(2)]
    assert scales == [[0.4, 0.4], [0.2, 0.2]]
    assert history.episodes.episode.tolist() == [0, 1, 2, 3]


def test_training_returns_are_in_the_order_of_each_agents_episodes_until_it_diverged():
    history = History(np.arange(10, 13))
    lengths = np.array([[1, 1], [0, 1], [1, 1]])
    for first in (0, 10):
        returns = first + np.array([[1, 2], [0, 3], [np.nan if first else 4, 5]])
        ended = history.add_chunk(log(3, 2, episode_length=lengths, episode_return=returns))
    assert [returns.tolist() for returns in history.training_returns()] == [[1, 2, 11, 12], [3, 13]]
    assert ended.agent.tolist() == [10, 12, 10, 11]  # agent 12's episode after its divergence is left out


def measured(agents, chunk_lengths, num_evaluations=2):
    """Agents with random numbers: 60 steps, evaluated after every 20."""
    num, rng = len(agents), np.random.default_rng(0)
    fields = {name: rng.normal(1e3, 1e3, (100, 60))[agents] for name in ("critic_loss", "q_mean", "clipped_targets")}
    fields["episode_length"] = rng.integers(0, 2, (100, 60))[agents]
    history = History(agents, noise_scale=np.ones(num), noise_decay=np.full(num, 0.9))
    for first in range(0, 20 * num_evaluations, 20):
        for length in chunk_lengths:
            here = slice(history.env_steps, history.env_steps + length)
            history.add_chunk(log(num, length, **{name: values[:, here] for name, values in fields.items()}))
        history.add_evaluation(np.asarray(agents) + first, first)
    return history


def assert_equal_arrays(one, other):
    one, other = one.to_arrays(), other.to_arrays()
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
        assert array.dtype == other[name].dtype


def test_lengths_of_chunks_change_no_bit():
    assert_equal_arrays(measured(range(5), [20]), measured(range(5), [2, 17, 1]))


def test_memory_does_not_grow_with_the_steps_since_the_last_evaluation():
    history = History(np.arange(8))
    for _ in range(50):
        history.add_chunk(log(8, 200))
    assert sum(array.nbytes for array in history.to_arrays().values()) < 2_000


@pytest.mark.parametrize("num_agents", [0, 2])
def test_history_continues_from_its_arrays_in_the_middle_of_an_interval(num_agents):
    whole = measured(range(num_agents), [20], num_evaluations=1)
    chunk = log(num_agents, 2, critic_loss=np.full((num_agents, 2), 3), episode_length=np.ones((num_agents, 2)))
    whole.add_chunk(chunk)
    continued = History.from_arrays(whole.to_arrays())
    for history in (whole, continued):
        history.add_chunk(chunk)
        history.add_evaluation(np.zeros(num_agents), 10)
    assert_equal_arrays(continued, whole)
    assert continued.metrics.eval_return.shape == (2, num_agents)


def test_agents_of_several_setups_are_joined_in_the_order_of_their_numbers():
    joined, whole = History.join([measured([1, 4], [20]), measured([0, 2, 3], [20])]), measured(range(5), [20])
    assert joined.agents.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(joined.metrics, whole.metrics)
    np.testing.assert_array_equal(*(np.concatenate(each.training_returns()) for each in (joined, whole)))


def test_agents_that_were_not_evaluated_as_often_have_no_numbers_there():
    joined = History.join([measured([0], [20], 2), measured([1], [20], 1), History(np.array([2]))])
    assert (joined.env_steps, joined.evaluation_steps.tolist()) == (40, [20, 40])
    assert joined.updates.tolist() == [[0, 0, -1], [20, -1, -1]]
    np.testing.assert_array_equal(joined.metrics.eval_return, [[0, 1, np.nan], [20, np.nan, np.nan]])


def test_some_of_the_agents_with_other_numbers():
    whole = measured(range(4), [20])
    whole.diverged = {1: 30, 2: 35}
    some = whole.select([3, 1], agents=[7, 8])
    assert (some.agents.tolist(), some.diverged) == ([7, 8], {8: 30})
    np.testing.assert_array_equal(some.metrics.critic_loss, whole.metrics.critic_loss[:, [3, 1]])
    assert np.sum(some.episodes.agent == 7) == np.sum(whole.episodes.agent == 3) > 0
    assert repr(some) == "History(2 agents, 40 environment steps, 2 evaluations)"
    assert_equal_arrays(whole.select(range(4)), whole)
