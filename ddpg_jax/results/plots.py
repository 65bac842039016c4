"""Figures from what a run has measured. Colours from Okabe & Ito 2008, which the colour-blind can tell apart."""

from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.results.history import History
from ddpg_jax.results.statistics import iqm, iqm_interval

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def learning_curve(path: Path, histories: list[History], title: str, optimum: float | None = None) -> None:
    """Greedy return against environment steps: every agent a faint line, their interquartile mean and its interval.

    Args:
        path: where the PNG goes.
        histories: of all agents, evaluated at the same steps.
        title: above the figure.
        optimum: the highest mean return that can be reached from the evaluation's start states, if it is known.
    """
    steps = np.array([step for step, _ in histories[0].evaluations])
    returns = np.concatenate([[returns for _, returns in history.evaluations] for history in histories], axis=1)
    figure, axes = new_figure(title, "environment steps of each agent", "greedy return of an episode")
    _draw_agents(axes, steps, returns[:, _sound(histories)])
    if optimum is not None:
        axes.axhline(optimum, color=ORANGE, linestyle="--", linewidth=1.2, label=f"optimum, {optimum:.1f}")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def training_returns(path: Path, histories: list[History], title: str, window: int) -> None:
    """The Keras tutorial's figure: the mean of the last `window` training returns, noise included, against episodes.

    Nothing is drawn where an agent has not completed an episode.
    """
    returns = [agent_returns for history in histories for agent_returns in history.training_returns()]
    num_episodes = min(map(len, returns), default=0)
    if num_episodes == 0:
        return
    totals = np.cumsum([agent_returns[:num_episodes] for agent_returns in returns], axis=1, dtype=np.float64).T
    means = totals.copy()
    means[window:] -= totals[:-window]
    episodes = np.arange(1, num_episodes + 1)
    means /= np.minimum(episodes, window)[:, None]
    figure, axes = new_figure(title, "episodes of each agent", f"mean of the last {window} training returns")
    _draw_agents(axes, episodes, means)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def new_figure(title: str, x_label: str, y_label: str, size: tuple[float, float] = (8, 4.8)) -> tuple[Any, Any]:
    """A figure of that size in inches with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.25)
    return figure, axes


def _draw_agents(axes: Any, x: np.ndarray, values: np.ndarray) -> None:
    """Values [X, N] of N agents: each a faint line, and the interquartile mean with its bootstrap interval."""
    num_agents = values.shape[1]
    if num_agents == 0:
        return
    marker = "o" if len(x) == 1 else None
    lines = axes.plot(x, values, color=BLUE, alpha=0.15, linewidth=0.8, marker=marker)
    lines[0].set_label("each agent")
    thinned = np.unique(np.linspace(0, len(x) - 1, 50).astype(int))
    if num_agents > 1:
        intervals = np.array([iqm_interval(values[i]) for i in thinned])
        axes.fill_between(x[thinned], *intervals.T, color=BLUE, alpha=0.3, linewidth=0, label="95% bootstrap interval")
    label = f"interquartile mean of {num_agents} agents"
    axes.plot(x, iqm(values, axis=1), color=BLUE, linewidth=2, label=label, marker=marker)


def _sound(histories: list[History]) -> np.ndarray:
    return np.concatenate([history.sound() for history in histories])
