"""Statistics over many agents: interquartile means, intervals, shortfalls, and comparisons of configurations.

`benchmarks/interval_coverage.py` simulates how often the 95% intervals here contain the true value: at least 93% of the
time from 5 agents on, but less often with few agents of which more than a quarter fail.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import nan, sqrt

import numpy as np
from scipy import optimize, stats

FEWEST = 5
"""Agents that an interval needs; with fewer it would be too narrow, or too wide to say anything."""

NO_INTERVAL = f"fewer than {FEWEST} agents: no interval"


def iqm(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Computes the interquartile mean: the mean of the middle half (Agarwal et al. 2021, section 4.3)."""
    return stats.trim_mean(values, 0.25, axis=axis)


def iqm_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Computes the expanded percentile bootstrap interval of the interquartile mean of finite values [N].

    The quantiles of the resampled means are taken at Phi(-sqrt(n / (n - 1)) t), with Student's t for n - 1 degrees of
    freedom, instead of at 2.5%: the percentile interval of few agents is too narrow (Hesterberg 2015, "What Teachers
    Should Know about the Bootstrap", https://arxiv.org/abs/1411.5279). That of 5 values reaches from the least to the
    largest. The bounds are NaN for fewer than `FEWEST` values.
    """
    num = len(values)
    if num < FEWEST:
        return nan, nan
    tail = stats.norm.sf(sqrt(num / (num - 1)) * stats.t.isf((1 - confidence) / 2, num - 1))
    means = np.sort(values)[_resampled_middles(num)].mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _resampled_middles(num: int) -> np.ndarray:
    """Returns the middle halves [R, H] of R resamples of `num` sorted values, as indices of these values."""
    resamples = 10_000 if num <= 256 else 2_000
    index = np.random.default_rng(0).integers(num, size=(resamples, num), dtype=np.int32)
    index.sort(axis=1)
    return index[:, num // 4 : num - num // 4].copy()


@dataclass(frozen=True)
class Returns:
    """Statistics over the mean returns of several agents, in units of return; NaN where they are not defined."""

    mean: float
    median: float
    iqm: float  # interquartile mean
    iqm_ci95: tuple[float, float]  # its 95% interval
    worst: float
    best: float


def describe_returns(returns: np.ndarray) -> Returns:
    """Returns the statistics over the agents' returns [N]; all are NaN if there are no agents."""
    values = returns if len(returns) else np.array([nan])
    mean, median, middle, worst, best = (float(f(values)) for f in (np.mean, np.median, iqm, np.min, np.max))
    return Returns(mean, median, middle, iqm_interval(returns), worst, best)


def shortfall(episode_returns: np.ndarray, optimal_returns: np.ndarray) -> np.ndarray:
    """Computes how far the agents' returns [N, S] stay below the optimum's [S], averaged over S start states: [N].

    The two are paired by start state, because the start states differ more than the agents do: on Pendulum the returns
    of the optimum itself have a standard deviation of 73.
    """
    return np.asarray(np.mean(optimal_returns - episode_returns, axis=-1, dtype=np.float64))


@dataclass(frozen=True)
class Shortfalls:
    """Statistics over the shortfalls of several agents, in units of return; NaN where they are not defined."""

    mean: float
    iqm: float  # interquartile mean
    largest: float
    num_solved: int | None  # agents that have solved the task; None where the environment does not define that


def describe_shortfall(shortfalls: np.ndarray, solved_shortfall: float | None) -> Shortfalls:
    """Returns the statistics over the agents' shortfalls [N]; all but the number of solved ones are NaN without agents.

    An agent whose shortfall is at most `solved_shortfall` has solved the task; None: the task does not define that.
    """
    num_solved = None if solved_shortfall is None else int(np.sum(shortfalls <= solved_shortfall))
    values = shortfalls if len(shortfalls) else np.array([nan])
    return Shortfalls(float(np.mean(values)), float(iqm(values)), float(np.max(values)), num_solved)


def probability_of_improvement(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Computes the probability that an agent drawn from `values` [N] beats one drawn from `baseline` [M].

    It is Mann and Whitney's U divided by N M, where ties count half (Agarwal et al. 2021, section 4.3). The interval
    holds every p with abs(U / (N M) - p) <= t sqrt(k v(p)). Here v is the variance of Newcombe's method 5 (2006,
    Statistics in Medicine 25, 559-573), which holds up to complete separation but assumes sets of like spread; k > 1
    raises it to the variance of DeLong et al. (1988) where that is larger; t is Student's, with Welch's degrees of
    freedom (Brunner and Munzel 2000). The bounds are NaN for fewer than `FEWEST` agents on either side.
    """
    n, m = len(values), len(baseline)
    beaten, unbeaten = _share_below(values, baseline), _share_below(baseline, values)
    p = float(np.mean(beaten))
    if min(n, m) < FEWEST:
        return p, nan, nan
    parts = np.array([np.var(beaten, ddof=1) / n, np.var(unbeaten, ddof=1) / m])
    scale, freedom = 1.0, n + m - 2.0
    if parts.any():
        scale = max(1.0, parts.sum() / _newcombe_variance(p, n, m))
        freedom = parts.sum() ** 2 / (parts**2 / (n - 1, m - 1)).sum()
    factor = scale * stats.t.isf(0.025, freedom) ** 2

    def excess(x: float) -> float:
        return (p - x) ** 2 - factor * _newcombe_variance(x, n, m)

    low = optimize.brentq(excess, 0, min(p, 1 - 1e-9)) if p > 0 else 0.0
    high = optimize.brentq(excess, max(p, 1e-9), 1) if p < 1 else 1.0
    return p, low, high


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the share [N] of the others [M] that each value [N] beats; ties count half."""
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(others))


def _newcombe_variance(p: float, n: int, m: int) -> float:
    """Returns the variance of U / (N M) in Newcombe's method 5: Hanley and McNeil's, with N and M averaged within."""
    middle = (n + m) / 2 - 1
    return p * (1 - p) * (1 + middle * ((1 - p) / (2 - p) + p / (1 + p))) / (n * m)


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Computes the interquartile mean of the differences between returns [S] of agents with the same seeds.

    Returns it with the bounds of its 95% interval (`iqm_interval`); NaN where there are too few pairs. Pairs with NaN,
    the return of an agent that diverged, are left out.
    """
    differences = (values - baseline)[np.isfinite(values) & np.isfinite(baseline)]
    return (float(iqm(differences)) if len(differences) else nan, *iqm_interval(differences))


def steps_until(steps: np.ndarray, returns: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the first of the steps [E] at which each agent's return [E, N] reaches the threshold, or NaN: [N]."""
    reached = returns >= threshold
    return np.where(reached.any(axis=0), steps[np.argmax(reached, axis=0)].astype(float), np.nan)


def area_under_curve(steps: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Averages each agent's return [E, N] over the steps [E] of its evaluations, by the trapezoidal rule: [N]."""
    if len(steps) == 1:
        return np.asarray(returns[0], np.float64)
    return np.asarray(np.trapezoid(returns, steps, axis=0) / (steps[-1] - steps[0]))


def performance_profile(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns the share [T] of agents [N] above each threshold [T] (Agarwal et al. 2021, section 4.2)."""
    return np.mean(values[None, :] > thresholds[:, None], axis=1)


@dataclass(frozen=True)
class Difference:
    """The difference of a configuration of a sweep from the best one, in units of return; NaN without pairs."""

    iqm: float  # interquartile mean of the paired differences; negative for a worse configuration
    ci95: tuple[float, float]  # its 95% interval
    p_adjusted: float  # of Wilcoxon's signed-rank test over the pairs, times the pairs of configurations; at most 1


SUPPORTED = 0.05
"""The seeds support a difference if its adjusted p value is at most this."""


def compare_configs(returns: np.ndarray) -> list[tuple[int, Difference]]:
    """Ranks the configurations of a sweep, and compares them with the best.

    They share their random numbers seed by seed, so their returns [C, S] are compared in pairs (see
    `paired_difference`). The p values are multiplied by the number of all pairs of configurations, C (C - 1) / 2
    (Bonferroni), and not only by the number of pairs with the best, because the same returns decide which one is best.
    Returns the rank of each configuration by its interquartile mean, 1 for the best, and its difference from the best.
    """
    centres = np.array([iqm(row[np.isfinite(row)]) if np.isfinite(row).any() else -np.inf for row in returns])
    order = np.argsort(-centres, kind="stable")
    best, num_pairs, found = returns[order[0]], len(returns) * (len(returns) - 1) // 2, []
    for rank, row in zip(np.argsort(order) + 1, returns, strict=True):
        mean, low, high = paired_difference(row, best)
        differences = (row - best)[np.isfinite(row - best)]
        p_value = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0  # 1 for equal returns
        p_adjusted = min(1.0, p_value * num_pairs) if len(differences) else nan
        found.append((int(rank), Difference(mean, (low, high), p_adjusted)))
    return found


def least_p_value(num_configs: int, num_seeds: int) -> float:
    """Returns the smallest adjusted p value that so many seeds can give: one configuration wins with every seed."""
    return float(min(1.0, 2.0 ** (1 - num_seeds) * num_configs * (num_configs - 1) / 2))
