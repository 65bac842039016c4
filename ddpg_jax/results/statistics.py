"""Statistics over many agents: interquartile means, intervals, shortfalls, and comparisons of the points of a sweep."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

_RESAMPLES = 10_000
_BOOTSTRAP_SEED = 0  # the interval of a given set of returns is always the same


def iqm(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Computes the interquartile mean: the mean of the middle half (Agarwal et al. 2021, section 4.3)."""
    return stats.trim_mean(values, 0.25, axis=axis)


def iqm_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Computes the percentile-bootstrap interval of the interquartile mean of values [N]; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    interval = stats.bootstrap(
        (values,),
        iqm,
        axis=0,
        n_resamples=_RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(_BOOTSTRAP_SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Returns:
    """Statistics over the mean returns of several agents, in units of return; NaN where they are not defined."""

    mean: float
    median: float
    iqm: float
    """Interquartile mean."""
    iqm_ci95: tuple[float, float]
    """Its 95% interval; NaN for fewer than two agents."""
    worst: float
    best: float


def describe_returns(returns: np.ndarray) -> Returns:
    """Returns the statistics over the agents' returns [N]; all are NaN if there are no agents."""
    if not len(returns):
        nan = float("nan")
        return Returns(mean=nan, median=nan, iqm=nan, iqm_ci95=(nan, nan), worst=nan, best=nan)
    return Returns(
        mean=float(np.mean(returns)),
        median=float(np.median(returns)),
        iqm=float(iqm(returns)),
        iqm_ci95=iqm_interval(returns),
        worst=float(np.min(returns)),
        best=float(np.max(returns)),
    )


def shortfall(episode_returns: np.ndarray, optimal_returns: np.ndarray) -> np.ndarray:
    """Computes how far the agents' returns stay below the optimum's, averaged over common start states.

    The two are paired by start state, because the start states differ more than the agents do: on Pendulum the returns
    of the optimum itself have a standard deviation of 73.

    Args:
        episode_returns: [N, S] of N agents from S start states.
        optimal_returns: [S] from the same start states.

    Returns:
        [N] float64.
    """
    return np.asarray(np.mean(optimal_returns - episode_returns, axis=-1, dtype=np.float64))


@dataclass(frozen=True)
class Shortfalls:
    """Statistics over the shortfalls of several agents, in units of return; NaN where they are not defined."""

    mean: float
    iqm: float
    """Interquartile mean."""
    worst: float
    num_solved: int | None
    """Agents that have solved the task; None where the environment does not define that."""


def describe_shortfall(shortfalls: np.ndarray, solved_shortfall: float | None) -> Shortfalls:
    """Returns the statistics over the agents' shortfalls [N]; all but the number of solved ones are NaN without agents.

    Args:
        shortfalls: of the agents.
        solved_shortfall: the largest shortfall of an agent that has solved the task (`Environment.solved_shortfall`).
    """
    num_solved = None if solved_shortfall is None else int(np.sum(shortfalls <= solved_shortfall))
    if not len(shortfalls):
        nan = float("nan")
        return Shortfalls(mean=nan, iqm=nan, worst=nan, num_solved=num_solved)
    return Shortfalls(
        mean=float(np.mean(shortfalls)),
        iqm=float(iqm(shortfalls)),
        worst=float(np.max(shortfalls)),
        num_solved=num_solved,
    )


def probability_of_improvement(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Computes the probability that an agent drawn from `values` beats one drawn from `baseline`.

    It is Mann and Whitney's U divided by N M, where ties count half (Agarwal et al. 2021, section 4.3). The interval is
    a percentile bootstrap over both sets of agents.

    Args:
        values: [N] returns.
        baseline: [M] returns.

    Returns:
        The probability, and the bounds of its 95% interval: NaN if there are fewer than two agents on either side.
    """
    x, y = values[:, None], baseline[None, :]
    probability = float(np.mean((x > y) + 0.5 * (x == y)))
    if min(len(values), len(baseline)) < 2:
        return probability, float("nan"), float("nan")
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    draws = [
        np.mean((x[i] > y[:, j]) + 0.5 * (x[i] == y[:, j]))
        for i, j in zip(
            rng.integers(len(values), size=(2_000, len(values))),
            rng.integers(len(baseline), size=(2_000, len(baseline))),
            strict=True,
        )
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return probability, float(low), float(high)


def steps_until(steps: np.ndarray, returns: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the first of the steps [E] at which each agent's return [E, N] reaches the threshold: [N].

    It is NaN for an agent that never reaches it.
    """
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


class Comparison(NamedTuple):
    """The comparison of a point of a sweep with the best point."""

    rank: int
    """1 for the best, by the interquartile mean."""
    difference: float
    """Mean over the seeds of the paired differences from the best point; negative for a worse point."""
    interval: tuple[float, float]
    """95% t interval of that mean."""
    p_value: float
    """p value of Wilcoxon's signed-rank test over the pairs, times the number of all pairs of points, at most 1."""


SUPPORTED = 0.05
"""The seeds support a difference if its adjusted p value is at most this."""


def compare_points(returns: np.ndarray) -> list[Comparison]:
    """Compares the points of a sweep with the best of them.

    Points share their random numbers seed by seed, so they are compared in pairs. The p values are multiplied by the
    number of all pairs of points, P (P - 1) / 2 (Bonferroni), and not only by the number of pairs with the best point,
    because the same returns decide which point is the best.

    Args:
        returns: [P, S] of P points and S seeds; NaN for an agent that diverged, whose pair is left out.

    Returns:
        One comparison per point, in the points' order.
    """
    centres = np.array([iqm(row[np.isfinite(row)]) if np.isfinite(row).any() else -np.inf for row in returns])
    ranks = np.empty(len(centres), int)
    ranks[np.argsort(-centres, kind="stable")] = np.arange(1, len(centres) + 1)
    best = returns[int(np.argmin(ranks))]
    num_pairs = len(returns) * (len(returns) - 1) // 2
    return [_compare_with_best(int(rank), row - best, num_pairs) for rank, row in zip(ranks, returns, strict=True)]


def _compare_with_best(rank: int, differences: np.ndarray, num_pairs: int) -> Comparison:
    finite = differences[np.isfinite(differences)]
    if not len(finite):
        return Comparison(rank, float("nan"), (float("nan"), float("nan")), float("nan"))
    mean = float(finite.mean())
    if not finite.any():  # the best point itself, or one with equal returns
        return Comparison(rank, mean, (mean, mean), 1.0)
    if len(finite) < 2:
        return Comparison(rank, mean, (float("nan"), float("nan")), 1.0)
    half = float(stats.t.ppf(0.975, len(finite) - 1) * stats.sem(finite))
    p_value = float(stats.wilcoxon(finite).pvalue)
    return Comparison(rank, mean, (mean - half, mean + half), min(1.0, p_value * num_pairs))


def least_p_value(num_points: int, num_seeds: int) -> float:
    """Returns the smallest adjusted p value that so many seeds can give: one point wins with every seed."""
    return float(min(1.0, 2.0 ** (1 - num_seeds) * num_points * (num_points - 1) / 2))
