import math

import numpy as np
import pytest

from ddpg_jax.results import statistics


def _iqm_by_hand(values):
    """Returns the mean of the values without a quarter of them (rounded down) at either end."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 3.0], 2.0),
        ([1.0, 2.0, 6.0], 3.0),
        ([100.0, 1.0, 3.0, -50.0], 2.0),
        ([7, 6, 5, 4, 3, 2, 1, 0], 3.5),
        ([1e6, -1e6, 1, 2, 3], 2.0),
    ],
)
def test_interquartile_mean_by_hand(values, expected):
    assert statistics.iqm(np.array(values, float)) == expected == _iqm_by_hand(values)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 31, 32, 33])
def test_interquartile_mean_of_many(num):
    values = np.random.default_rng(num).normal(size=num)
    assert statistics.iqm(values) == pytest.approx(_iqm_by_hand(values), rel=1e-12)


def test_interval_against_another_bootstrap():
    """Computes the same percentile bootstrap step by step: resample, cut, average, take the quantiles."""
    values = np.random.default_rng(0).gumbel(size=32)
    low, high = statistics.iqm_interval(values)
    resamples = np.sort(np.random.default_rng(1).choice(values, size=(20_000, 32)), axis=1)
    other_low, other_high = np.quantile(resamples[:, 8:24].mean(axis=1), [0.025, 0.975])
    spread = other_high - other_low
    # Quantiles of 10,000 resamples have a standard error of about 1% of the interval's length.
    assert abs(low - other_low) < 0.05 * spread
    assert abs(high - other_high) < 0.05 * spread


def test_interval_of_a_mean_in_closed_form():
    """A resample of two values a and b is (a, a), (b, b), or, twice as often, mixed: the quantiles are a and b."""
    assert statistics.iqm_interval(np.array([-3.0, 8.0])) == (-3.0, 8.0)


def test_interval_covers_the_true_value_as_often_as_it_says():
    """If a distribution is symmetric about 0, its interquartile mean is 0. 95% of 200 is 190, standard deviation 3."""
    generator = np.random.default_rng(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_RESAMPLES", 400)
        intervals = [statistics.iqm_interval(generator.normal(size=32)) for _ in range(200)]
    covered = sum(low < 0 < high for low, high in intervals)
    assert 176 <= covered <= 199


def test_interval_is_the_same_every_time():
    values = np.arange(10.0)
    assert statistics.iqm_interval(values) == statistics.iqm_interval(values)


@pytest.mark.parametrize("values", [[], [3.0]])
def test_fewer_than_two_agents_have_no_interval(values):
    assert all(math.isnan(bound) for bound in statistics.iqm_interval(np.array(values)))


def test_equal_agents_have_an_interval_of_no_length():
    assert statistics.iqm_interval(np.full(5, -140.0)) == (-140.0, -140.0)


def test_returns_of_one_agent():
    described = statistics.describe_returns(np.array([-150.0]))
    assert {described.mean, described.median, described.iqm, described.worst, described.best} == {-150.0}
    assert all(math.isnan(bound) for bound in described.iqm_ci95)


def test_returns_of_no_agent():
    described = statistics.describe_returns(np.zeros(0))
    numbers = (described.mean, described.median, described.iqm, described.worst, described.best, *described.iqm_ci95)
    assert all(map(math.isnan, numbers))


def test_returns_of_several_agents():
    described = statistics.describe_returns(np.array([-10.0, -40.0, -20.0, -30.0]))
    assert described.mean == described.median == described.iqm == -25.0
    assert (described.worst, described.best) == (-40.0, -10.0)
    low, high = described.iqm_ci95
    assert -40 <= low < -25 < high <= -10


def test_shortfall_is_paired_by_start_state():
    """The optimum's returns differ by start state; an agent that is 3 worse from each has a shortfall of 3, no more."""
    optimum = np.array([-100.0, -1.0, -400.0])
    returns = np.array([optimum - 3, optimum, [-100, -1, -100]])
    np.testing.assert_array_equal(statistics.shortfall(returns, optimum), [3, 0, -100])
    np.testing.assert_array_equal(statistics.shortfall(returns[:, :2], optimum[:2]), [3, 0, 0])


def test_shortfall_of_float32_returns_is_averaged_in_float64():
    optimum = np.zeros(512)
    returns = np.full((1, 512), -0.1, np.float32)
    assert statistics.shortfall(returns, optimum)[0] == pytest.approx(np.float64(np.float32(0.1)), rel=1e-12)


def test_shortfalls_described():
    shortfalls = np.array([1.0, 20.0, 20.5, 3.0])
    described = statistics.describe_shortfall(shortfalls, 20.0)
    assert described == statistics.Shortfalls(mean=11.125, iqm=11.5, worst=20.5, num_solved=3)
    assert statistics.describe_shortfall(shortfalls, 2.5).num_solved == 1


def test_nothing_is_solved_or_unsolved_where_the_environment_does_not_say_when():
    assert statistics.describe_shortfall(np.array([1.0, 2.0]), None).num_solved is None
    assert statistics.describe_shortfall(np.zeros(0), None).num_solved is None


def test_shortfalls_of_no_agent():
    described = statistics.describe_shortfall(np.zeros(0), 20.0)
    assert all(map(math.isnan, (described.mean, described.iqm, described.worst)))
    assert described.num_solved == 0
