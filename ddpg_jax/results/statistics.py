"""Statements about many agents: the interquartile mean and its interval, and the shortfall to the optimum."""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

SOLVED_SHORTFALL = 20.0
"""An agent has solved Pendulum if its mean paired shortfall to the optimum is at most this, in units of return."""

_RESAMPLES = 10_000
_BOOTSTRAP_SEED = 0  # the interval of a given set of returns is always the same


def iqm(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Interquartile mean: the mean of the middle half (Agarwal et al. 2021, section 4.3)."""
    return stats.trim_mean(values, 0.25, axis=axis)


def iqm_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile-bootstrap confidence interval of the interquartile mean of values [N]; NaN for fewer than two."""
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


def describe_returns(returns: np.ndarray) -> dict[str, Any]:
    """Mean, median, interquartile mean with its 95% interval, worst and best of the agents' returns [N]."""
    if not len(returns):
        return dict.fromkeys(("mean", "median", "iqm", "worst", "best")) | {"iqm_ci95": [None, None]}
    return {
        "mean": float(np.mean(returns)),
        "median": float(np.median(returns)),
        "iqm": float(iqm(returns)),
        "iqm_ci95": list(iqm_interval(returns)),
        "worst": float(np.min(returns)),
        "best": float(np.max(returns)),
    }


def shortfall(episode_returns: np.ndarray, optimal_returns: np.ndarray) -> np.ndarray:
    """How much each agent's returns [N, S] stay below the optimum's from the same start states [S], averaged: [N].

    Paired by start state, which removes the spread of the start states: an episode's return has a standard deviation
    of 73 under the optimum itself.
    """
    return np.asarray(np.mean(optimal_returns - episode_returns, axis=-1, dtype=np.float64))


def describe_shortfall(shortfalls: np.ndarray) -> dict[str, Any]:
    """Mean, interquartile mean and worst of the agents' shortfalls [N], and how many have solved the task."""
    if not len(shortfalls):
        return {"mean": None, "iqm": None, "worst": None, "num_solved": 0}
    return {
        "mean": float(np.mean(shortfalls)),
        "iqm": float(iqm(shortfalls)),
        "worst": float(np.max(shortfalls)),
        "num_solved": int(np.sum(shortfalls <= SOLVED_SHORTFALL)),
    }


def probability_of_improvement(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """The probability that an agent drawn from `values` [N] beats one drawn from `baseline` [M], with its 95% interval.

    Mann & Whitney's U over N M, ties counting half (Agarwal et al. 2021, section 4.3); the interval is a percentile
    bootstrap over both. The interval is NaN where one of them has fewer than two agents.
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
    """The first of the steps [E] at which each agent's return [E, N] reaches the threshold; NaN if it never does."""
    reached = returns >= threshold
    return np.where(reached.any(axis=0), steps[np.argmax(reached, axis=0)].astype(float), np.nan)


def area_under_curve(steps: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Each agent's return averaged over the steps [E] at which it was evaluated, [E, N] to [N]: trapezoidal rule."""
    if len(steps) == 1:
        return np.asarray(returns[0], np.float64)
    return np.asarray(np.trapezoid(returns, steps, axis=0) / (steps[-1] - steps[0]))


def performance_profile(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of agents [N] above each of the thresholds [T] (Agarwal et al. 2021, section 4.2)."""
    return np.mean(values[None, :] > thresholds[:, None], axis=1)


class Comparison(NamedTuple):
    """A point of a sweep beside the best one."""

    rank: int
    """1 for the best, by the interquartile mean."""
    difference: float
    """Mean of the paired differences to the best, seed by seed: negative where it stays behind."""
    interval: tuple[float, float]
    """95% t interval of that mean."""
    p_value: float
    """Of Wilcoxon's signed-rank test over the pairs, times the number of all pairs of points."""


SUPPORTED = 0.05
"""A difference is supported by the seeds if its adjusted p value is at most this."""


def compare_points(returns: np.ndarray) -> list[Comparison]:
    """Compares the points of a sweep with the best of them, by their returns [P, S] from S seeds that they share.

    Points share their random numbers seed by seed, so they are compared in pairs. The p values are multiplied by the
    number of all pairs of points, P (P - 1) / 2 (Bonferroni), and not of those with the best alone, because which
    point is the best is read from the same returns. NaN stands for an agent that diverged; its pair is left out.
    """
    centres = np.array([iqm(row[np.isfinite(row)]) if np.isfinite(row).any() else -np.inf for row in returns])
    ranks = np.empty(len(centres), int)
    ranks[np.argsort(-centres, kind="stable")] = np.arange(1, len(centres) + 1)
    best = returns[int(np.argmin(ranks))]
    num_pairs = len(returns) * (len(returns) - 1) // 2
    return [_compare(int(rank), row - best, num_pairs) for rank, row in zip(ranks, returns, strict=True)]


def _compare(rank: int, differences: np.ndarray, num_pairs: int) -> Comparison:
    finite = differences[np.isfinite(differences)]
    if not len(finite):
        return Comparison(rank, float("nan"), (float("nan"), float("nan")), float("nan"))
    mean = float(finite.mean())
    if not finite.any():  # the best itself, or a point that made no difference
        return Comparison(rank, mean, (mean, mean), 1.0)
    if len(finite) < 2:
        return Comparison(rank, mean, (float("nan"), float("nan")), 1.0)
    half = float(stats.t.ppf(0.975, len(finite) - 1) * stats.sem(finite))
    p_value = float(stats.wilcoxon(finite).pvalue)
    return Comparison(rank, mean, (mean - half, mean + half), min(1.0, p_value * num_pairs))


def least_p_value(num_points: int, num_seeds: int) -> float:
    """The smallest adjusted p value that so many seeds can give: where one point wins with every seed."""
    return float(min(1.0, 2.0 ** (1 - num_seeds) * num_points * (num_points - 1) / 2))
