"""Figures of the returns of many agents."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.processes.imports import import_matplotlib
from ddpg_jax.results.history import History
from ddpg_jax.results.statistics import iqm, iqm_interval

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito (2008), which colour-blind readers can tell apart."""

BLUE, ORANGE, GREEN, *_ = COLORS


@contextmanager
def own_style() -> Iterator[None]:
    """Makes figures drawn inside independent of the user's rc file, style and MPLBACKEND, which are restored."""
    import_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def learning_curve(path: Path, histories: Sequence[History], title: str, optimum: float | None = None) -> None:
    """Draws greedy returns against environment steps: each agent as a faint line, and the interquartile mean.

    Args:
        path: file of the PNG.
        histories: of all agents, evaluated at the same steps.
        title: title of the figure.
        optimum: highest mean return that can be reached from the evaluation's start states; None: it is not known.
    """
    steps, returns = greedy_curves(histories)
    figure, axes = new_figure(title, "environment steps per agent", "mean greedy return")
    _draw_agents(axes, steps, returns[:, ~np.isnan(returns).any(axis=0)])
    if optimum is not None:
        axes.axhline(optimum, color=ORANGE, linestyle="--", linewidth=1.2, label=f"optimum, {optimum:.1f}")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def training_returns(path: Path, histories: Sequence[History], title: str, window: int) -> None:
    """Draws the Keras tutorial's figure: the mean of the last `window` training returns against episodes.

    Training returns include exploration noise. No figure is drawn if an agent has not completed an episode.
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
    figure, axes = new_figure(title, "episodes per agent", f"mean of the last {window} training returns")
    _draw_agents(axes, episodes, means)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def greedy_curves(histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps [E] of the evaluations and the greedy returns [E, N]; NaN throughout for diverged agents."""
    returns = [np.where(history.is_finite(), history.metrics.eval_return, np.nan) for history in histories]
    return histories[0].evaluation_steps, np.concatenate(returns, axis=1)


def new_figure(title: str, x_label: str, y_label: str, size: tuple[float, float] = (8, 4.8)) -> tuple[Any, Any]:
    """Returns a figure of this size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.25)
    return figure, axes


def _draw_agents(axes: Any, x: np.ndarray, values: np.ndarray) -> None:
    """Draws values [X, N] of N agents as faint lines, and their interquartile mean with its bootstrap interval."""
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
