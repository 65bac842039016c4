"""Statistics against values by hand, closed forms and SciPy, and how often intervals hold the true value."""

import math

import numpy as np
import pytest
from scipy import stats

from ddpg_jax.results import statistics


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5.0], 5.0), ([1.0, 2.0, 6.0], 3.0), ([100.0, 1.0, 3.0, -50.0], 2.0), ([1e6, -1e6, 1, 2, 3], 2.0),
     ([*range(32), 1e9], 16.0)],
)  # fmt: skip
def test_interquartile_mean_by_hand(values, expected):
    """It is the mean without a quarter of the values, rounded down, at either end."""
    assert statistics.iqm(np.array(values, float)) == expected


@pytest.mark.parametrize("num", [8, 300])
def test_interval_against_another_bootstrap(num):
    """SciPy's percentile bootstrap at the levels of the R package resample (Hesterberg 2015), `ExpandProbs`."""
    values = np.random.default_rng(0).gumbel(size=num)
    tail = stats.norm.cdf(-math.sqrt(num / (num - 1)) * stats.t.ppf(0.975, num - 1))
    other = stats.bootstrap((values,), statistics.iqm, axis=0, n_resamples=20_000, confidence_level=1 - 2 * tail,
                            method="percentile", rng=np.random.default_rng(1)).confidence_interval  # fmt: skip
    assert statistics.iqm_interval(values) == pytest.approx(tuple(other), abs=0.1 * (other.high - other.low))
    assert statistics.iqm_interval(values) == statistics.iqm_interval(values[::-1])


@pytest.mark.parametrize("values", [[3.0, -1.0, 10.0, 4.0, 2.0], [-140.0] * 5])
def test_interval_of_five_agents_reaches_from_the_worst_to_the_best(values):
    """Four of five resampled agents are the same with a probability of 0.7%, more often than the level."""
    assert statistics.iqm_interval(np.array(values)) == (min(values), max(values))


def coverage(intervals, true):
    low, high = np.array(intervals).T
    return np.mean((low <= true) & (true <= high))


@pytest.mark.parametrize(("draw", "true"), [("normal", 0.0), ("exponential", 1 + math.log(4) - 1.5 * math.log(3))])
def test_interval_covers_the_true_value_as_often_as_it_says(draw, true):
    """With 800 samples, a coverage of 93.5% has a standard error of 0.9%; a percentile bootstrap of 5 covers 89%."""
    samples = getattr(np.random.default_rng(5), draw)(size=(800, 5))
    assert coverage([statistics.iqm_interval(sample) for sample in samples], true) > 0.915


@pytest.mark.parametrize("difference", [0.0, 2.0])
def test_interval_of_the_improvement_covers_the_true_value(difference):
    """One of normal agents beats another, whose mean is lower by d, with probability Phi(d / sqrt 2).

    A percentile bootstrap covers 60% for five agents and d = 2.
    """
    rng, true = np.random.default_rng(5), stats.norm.cdf(difference / math.sqrt(2))
    pairs = zip(rng.normal(difference, 1, (800, 5)), rng.normal(0, 1, (800, 5)), strict=True)
    assert coverage([statistics.probability_of_improvement(x, y)[1:] for x, y in pairs], true) > 0.925


@pytest.mark.parametrize("num", [0, 1, 4])
def test_fewer_than_five_agents_have_no_interval(num):
    values = np.arange(float(num))
    assert np.isnan([*statistics.iqm_interval(values), *statistics.describe_returns(values).iqm_ci95]).all()
    if num:
        for sides in ((values, np.arange(8.0)), (np.arange(8.0), values)):
            assert [math.isnan(x) for x in statistics.probability_of_improvement(*sides)] == [False, True, True]
            assert [math.isnan(x) for x in statistics.paired_difference(values, values)] == [False, True, True]


def test_improvement_over_worse_agents_has_newcombes_interval():
    """Where all agents of one side are better, the lower bound solves 1 - p = t sqrt(v(p)) (Newcombe 2006)."""
    probability, low, high = statistics.probability_of_improvement(np.arange(10.0, 15), np.arange(5.0))
    assert (probability, high) == (1.0, 1.0)
    variance = low * (1 - low) * (1 + 4 * ((1 - low) / (2 - low) + low / (1 + low))) / 25
    assert 1 - low == pytest.approx(stats.t.ppf(0.975, 8) * math.sqrt(variance))
    assert low > 0.5


@pytest.mark.parametrize("equal", [False, True])
def test_improvement_is_mirrored_when_the_sides_change(equal):
    rng = np.random.default_rng(0)
    x, y = (np.full(6, 2.0), np.full(6, 2.0)) if equal else (rng.normal(0.5, 3, 7), rng.normal(size=20))
    probability, low, high = statistics.probability_of_improvement(x, y)
    assert statistics.probability_of_improvement(y, x) == pytest.approx((1 - probability, 1 - high, 1 - low))
    assert 0.1 < low < probability < high
    assert (probability == 0.5) == equal  # ties count half


def test_returns_and_shortfalls_are_described():
    returns = statistics.describe_returns(np.array([-10.0, -40.0, -20.0, -30.0, -25.0]))
    assert returns == statistics.Returns(-25.0, -25.0, -25.0, (-40.0, -10.0), worst=-40.0, best=-10.0)
    shortfalls = np.array([1.0, 20.0, 20.5, 3.0])
    assert statistics.describe_shortfall(shortfalls, 20.0) == statistics.Shortfalls(11.125, 11.5, 20.5, num_solved=3)
    assert statistics.describe_shortfall(shortfalls, None).num_solved is None
    none, nothing = np.zeros(0), statistics.describe_shortfall(np.zeros(0), 20.0)
    assert np.isnan([statistics.describe_returns(none).mean, nothing.mean, nothing.iqm, nothing.largest]).all()
    assert nothing.num_solved == 0


def test_shortfall_is_paired_by_start_state():
    """The optimum's returns differ by start state; an agent that is 3 worse from each has a shortfall of 3, no more."""
    optimum = np.array([-100.0, -1.0, -400.0])
    returns = np.array([optimum - 3, optimum, [-100, -1, -100]])
    np.testing.assert_array_equal(statistics.shortfall(returns, optimum), [3, 0, -100])
    float32 = np.full((1, 512), -0.1, np.float32)  # averaged in float64
    assert statistics.shortfall(float32, np.zeros(512))[0] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_statistics_of_learning_curves_and_profiles():
    steps, returns = np.array([0, 10, 40]), np.array([[0.0, 5, 0], [2.0, 0, 0], [2.0, 5, 0]])
    np.testing.assert_array_equal(statistics.steps_until(steps, returns, 2.0), [10, 0, np.nan])
    np.testing.assert_array_equal(statistics.area_under_curve(steps, returns), [(10 + 60) / 40, (25 + 75) / 40, 0])
    np.testing.assert_array_equal(statistics.area_under_curve(steps[:1], returns[:1]), returns[0])
    assert statistics.performance_profile(np.array([1.0, 2, 3, 4]), np.array([0, 2, 4])).tolist() == [1, 0.5, 0]


def test_best_configuration_is_found_and_the_others_are_compared_in_pairs():
    """Differences are far smaller than the luck that the configurations share, seed by seed."""
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 50, 16)
    best, worse = luck, luck - 5 + rng.normal(0, 1, 16)
    (first, far), (second, least), (third, same) = statistics.compare_configs(np.stack([worse, best, best]))
    assert (first, second, third) == (3, 1, 2)
    assert far.iqm == pytest.approx(np.sort(worse - best)[4:12].mean())
    assert far.ci95 == statistics.iqm_interval(worse - best)
    assert far.p_adjusted == pytest.approx(3 * 2**-15)  # lower with every seed: two tails, three pairs of configs
    assert least == same == statistics.Difference(0.0, (0.0, 0.0), 1.0)


def test_few_seeds_support_nothing():
    """Four pairs: even if one configuration wins with every seed, p is 2 / 16."""
    returns = np.arange(4.0) + np.array([[0.0], [100.0]])
    assert min(difference.p_adjusted for _, difference in statistics.compare_configs(returns)) == 0.125
    assert (statistics.least_p_value(2, 4), statistics.least_p_value(3, 8)) == (0.125, 3 / 128)


@pytest.mark.slow
def test_no_false_winner_among_equals():
    """All 12 are equal: the correction must keep the level of 5% although the best one was selected."""
    rng = np.random.default_rng(0)
    sweeps = (statistics.compare_configs(rng.normal(size=(12, 16))) for _ in range(200))
    assert sum(min(each.p_adjusted for _, each in sweep) <= 0.05 for sweep in sweeps) <= 10 + 3 * 3


def test_pairs_with_a_diverged_agent_are_left_out():
    values, baseline = np.array([1.0, np.nan, 3.0, 4.0]), np.array([0.0, 0.0, np.nan, 2.0])
    assert statistics.paired_difference(values, baseline)[0] == 1.5
    returns = np.array([[np.nan] * 5, [1.0, 2.0, np.nan, 3.0, 4.0]])
    (rank, difference), (best, _) = statistics.compare_configs(returns)
    assert (rank, best) == (2, 1)
    assert np.isnan([difference.iqm, *difference.ci95, difference.p_adjusted]).all()
