"""Figures from what a run has measured. Colours from Okabe & Ito 2008, which the colour-blind can tell apart."""

from pathlib import Path

import numpy as np

from ddpg_jax.history import History
from ddpg_jax.statistics import iqm, iqm_interval

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def learning_curve(path: Path, histories: list[History], title: str, optimum: float | None = None) -> None:
    """Greedy return against environment steps: every agent a faint line, their interquartile mean and its interval.

    Args:
        path: where the PNG goes.
        histories: of all agents, evaluated at the same steps.
        title: above the figure.
        optimum: the highest mean return that can be reached from the evaluation's start states, if it is known.
    """
    from matplotlib.figure import Figure

    steps = np.array([step for step, _ in histories[0].evaluations])
    returns = np.stack(
        [np.concatenate([history.evaluations[i][1] for history in histories]) for i in range(len(steps))]
    )  # [evaluations, N]
    sound = np.concatenate([history.sound() for history in histories])
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    if len(steps) == 1:
        axes.set_xlim(0, 2 * steps[0])
    marker = "o" if len(steps) == 1 else None
    axes.plot(steps, returns[:, sound], color=BLUE, alpha=0.15, linewidth=0.8, marker=marker)
    if sound.any():
        intervals = np.array([iqm_interval(row[sound]) for row in returns])
        axes.fill_between(steps, *intervals.T, color=BLUE, alpha=0.3, linewidth=0, label="95% bootstrap interval")
        label = f"interquartile mean of {np.sum(sound)} agents"
        axes.plot(steps, iqm(returns[:, sound], axis=1), color=BLUE, linewidth=2, label=label, marker=marker)
    axes.plot([], [], color=BLUE, alpha=0.3, linewidth=0.8, label="each agent")
    if optimum is not None:
        axes.axhline(optimum, color=ORANGE, linestyle="--", linewidth=1.2, label=f"optimum, {optimum:.1f}")
    axes.set(xlabel="environment steps of each agent", ylabel="greedy return of an episode", title=title)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)
