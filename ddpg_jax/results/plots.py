"""Figures of the returns of many agents. They are returned, for a notebook to show; `png` gives them as a file."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ddpg_jax.results.history import History
from ddpg_jax.results.statistics import FEWEST, NO_INTERVAL, iqm, iqm_interval
from ddpg_jax.results.summary import LAST_EPISODES, Summary

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito (2008), which colour-blind readers can tell apart."""

BLUE, ORANGE, GREEN, *_ = COLORS

INTERVAL = "95% bootstrap interval of the IQM"
"""How figures name the result of `iqm_interval`."""


@contextmanager
def own_style() -> Iterator[None]:
    """Makes figures drawn inside independent of the user's rc file, style and MPLBACKEND, which are restored.

    Matplotlib reads MPLBACKEND when it is imported, and refuses a name that it does not know, such as that of a
    notebook of another environment.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@own_style()
def png(figure: Any) -> bytes:
    """Returns a figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def new_figure(
    title: str = "", x_label: str = "", y_label: str = "", *, size: tuple[float, float] = (8, 4.8), columns: int = 1
) -> tuple[Any, Any]:
    """Returns a figure of this size in inches, and its axes: an array of them for several columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure._repr_png_ = partial(png, figure)  # type: ignore[attr-defined]  # by which IPython shows it without pyplot
    axes = figure.subplots(1, columns)
    for each in np.ravel(axes):
        each.set(xlabel=x_label, ylabel=y_label, title=title)
        each.grid(alpha=0.25)
    return figure, axes


@own_style()
def learning_curve(history: History, summary: Summary) -> Any:
    """Returns a figure of greedy returns against environment steps.

    Each agent is a faint line, their interquartile mean a thick one. Agents that diverged are left out.
    """
    label = f"greedy return, mean of {summary.eval_episodes} episodes"
    figure, axes = new_figure(summary.subject, "environment steps per agent", label)
    steps, returns = history.greedy_returns()
    _draw_agents(axes, steps, returns[:, history.is_finite()])
    draw_optimum(axes, summary)
    if axes.lines:
        axes.legend(loc="lower right", frameon=False)
    return figure


@own_style()
def training_returns(history: History, summary: Summary, window: int = LAST_EPISODES) -> Any:
    """Returns the Keras tutorial's figure: the mean of the last `window` training returns against episodes.

    Training returns include exploration noise. None if an agent has not completed an episode.
    """
    returns = history.training_returns()
    episodes = np.arange(1, min(map(len, returns), default=0) + 1)
    if len(episodes) == 0:
        return None
    totals = np.cumsum([agent_returns[: len(episodes)] for agent_returns in returns], axis=1, dtype=np.float64).T
    means = totals.copy()
    means[window:] -= totals[:-window]
    means /= np.minimum(episodes, window)[:, None]
    label = f"training return, mean of the last {window} episodes"
    figure, axes = new_figure(summary.subject, "episodes per agent", label)
    _draw_agents(axes, episodes, means)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _draw_agents(axes: Any, x: np.ndarray, values: np.ndarray) -> None:
    """Draws values [X, N] of N agents as faint lines, and their interquartile mean with its interval."""
    num_agents, marker = values.shape[1], "o" if len(x) == 1 else None
    if values.size == 0:
        return
    axes.plot(x, values, color=BLUE, alpha=0.15, linewidth=0.8, marker=marker)[0].set_label("each agent")
    label = f"interquartile mean (IQM) of {num_agents} agents"
    label += f"\n({NO_INTERVAL})" if 1 < num_agents < FEWEST else ""
    axes.plot(x, iqm(values, axis=1), color=BLUE, linewidth=2, label=label, marker=marker)
    draw_interval(axes, x, values, BLUE, INTERVAL)


def draw_interval(axes: Any, x: np.ndarray, values: np.ndarray, color: Any, label: str | None = None) -> None:
    """Draws the intervals of the interquartile means of values [X, N] at 50 of the x [X]; none for too few agents."""
    if values.shape[1] >= FEWEST:
        thinned = np.unique(np.linspace(0, len(x) - 1, 50).astype(int))
        low, high = np.array([iqm_interval(values[i]) for i in thinned]).T
        axes.fill_between(x[thinned], low, high, color=color, alpha=0.25, linewidth=0, label=label)


def draw_optimum(axes: Any, summary: Summary) -> None:
    """Draws the highest mean return from the start states of evaluations, if it is known."""
    if summary.eval_optimum is not None:
        label = f"optimum, {summary.eval_optimum:.1f}"
        axes.axhline(summary.eval_optimum, color=ORANGE, linestyle="--", linewidth=1.2, label=label)
