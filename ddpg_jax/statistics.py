"""Statements about many agents: the interquartile mean and its interval, and the shortfall to the optimum."""

from typing import Any

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
