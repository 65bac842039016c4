"""Comparison of finished runs, of the points of sweeps, and of agents in memory: a table and a figure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.environments import pendulum
from ddpg_jax.results import statistics
from ddpg_jax.results.history import History
from ddpg_jax.results.plots import COLORS
from ddpg_jax.values import interval, words

WIDTHS = {"IQM [95%]": 18, "improvement [95%]": 12, "run": 9}
"""Least widths of columns in characters, so that an interval stays on one line."""


@dataclass(frozen=True)
class Run:
    """The results of a run, or of a point of a sweep, that are compared."""

    name: str
    env_id: str
    steps: np.ndarray
    """[E] environment steps per agent at the evaluations."""
    returns: np.ndarray
    """[E, N] greedy returns of the agents that did not diverge."""
    final: np.ndarray
    """[N] their final greedy returns."""
    num_diverged: int
    threshold: float | None
    """Evaluation return that counts as solved; None if the task defines none."""


@dataclass(frozen=True)
class Row:
    """The statistics of a run in a comparison."""

    run: str
    """The run's name."""
    agents: int
    """N, without those that diverged."""
    num_diverged: int
    iqm: float
    """Interquartile mean of the final returns."""
    iqm_ci95: tuple[float, float]
    worst: float
    area: float
    """Greedy return averaged over the agents and over the steps of training."""
    improvement: tuple[float, float, float]
    """Probability of improvement over the first run, and the bounds of its 95% interval."""
    num_reached: int | None
    """Agents that reached the threshold; None, like the next one, without a threshold."""
    median_steps: float | None
    """Median of the steps until then; infinite if half of the agents never reach it."""


def read_runs(folder: Path) -> list[Run]:
    """Reads a finished run; a sweep gives one run per point.

    Raises:
        ValueError: if the folder does not hold a finished run, or all of its agents diverged.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text())
        table = np.atleast_1d(np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True))
        final = np.asarray(summary["per_agent_final_return"], float)
        finite = np.isin(np.arange(len(final)), summary["diverged_agents"], invert=True)
        steps = np.unique(table["env_steps"])
        returns = table["eval_return"].reshape(len(steps), len(final))
        points = summary.get("points", [{"values": {}}])
        env_id, threshold = summary["env_id"], _solved_return(summary)
        names = [f"{folder.name}: {words(point['values'])}" if point["values"] else folder.name for point in points]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is not the folder of a finished run: {error}") from error
    runs = []
    for name, agents in zip(names, np.array_split(np.arange(len(final)), len(points)), strict=True):
        left = agents[finite[agents]]
        if not len(left):
            raise ValueError(f"{name} has no agent that did not diverge")
        runs.append(Run(name, env_id, steps, returns[:, left], final[left], len(agents) - len(left), threshold))
    return runs


def _solved_return(summary: dict[str, Any]) -> float | None:
    """The evaluation return that counts as solved, from the content of `summary.json`."""
    shortfall = summary.get("solved_shortfall")
    if "solved_shortfall" not in summary and summary["env_id"] == pendulum.ENV_ID:
        shortfall = pendulum.SOLVED_SHORTFALL  # earlier summaries do not have the key
    optimum = summary.get("eval_optimum")
    return None if optimum is None or shortfall is None else optimum - shortfall


def run_of(name: str, history: History, threshold: float | None = None) -> Run:
    """Returns agents in memory (see `ddpg_jax.train`) as a run.

    Args:
        name: of the run.
        history: the agents' measurements.
        threshold: evaluation return that counts as solved.
    """
    steps, returns = history.greedy_returns()
    returns = returns[:, history.is_finite()]
    return Run(name, history.config.env_id, steps, returns, returns[-1], len(history.diverged), threshold)


def compare(runs: Sequence[Run], threshold: float | None) -> list[Row]:
    """Returns a row of statistics per run.

    Args:
        runs: the first is the one that the others are compared with.
        threshold: evaluation return that counts as reached.
    """
    return [_row(run, runs[0], threshold) for run in runs]


def _row(run: Run, first: Run, threshold: float | None) -> Row:
    reached = None if threshold is None else statistics.steps_until(run.steps, run.returns, threshold)
    return Row(
        run=run.name,
        agents=len(run.final),
        num_diverged=run.num_diverged,
        iqm=float(statistics.iqm(run.final)),
        iqm_ci95=statistics.iqm_interval(run.final),
        worst=float(np.min(run.final)),
        area=float(np.mean(statistics.area_under_curve(run.steps, run.returns))),
        improvement=statistics.probability_of_improvement(run.final, first.final),
        num_reached=None if reached is None else int(np.sum(np.isfinite(reached))),
        median_steps=None if reached is None else float(np.median(np.nan_to_num(reached, nan=np.inf))),
    )


def draw(runs: Sequence[Run], threshold: float | None) -> Any:
    """Returns a figure: learning curves on the left, performance profiles of the final returns on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    curves, profiles = figure.subplots(1, 2)
    low, high = min(run.final.min() for run in runs), max(run.final.max() for run in runs)
    thresholds = np.linspace(low - 0.05 * (high - low) - 1, high, 300)
    for index, run in enumerate(runs):
        color = COLORS[index % len(COLORS)]
        intervals = np.array([statistics.iqm_interval(row) for row in run.returns])
        curves.fill_between(run.steps, *intervals.T, color=color, alpha=0.2, linewidth=0)
        curves.plot(run.steps, statistics.iqm(run.returns, axis=1), color=color, linewidth=2, label=run.name)
        profiles.plot(thresholds, statistics.performance_profile(run.final, thresholds), color=color, linewidth=2)
    if threshold is not None:
        curves.axhline(threshold, color="black", linestyle=":", linewidth=1, label=f"threshold {threshold:.1f}")
    curves.set(xlabel="environment steps per agent", ylabel="greedy return: IQM and its 95% interval")
    profiles.set(xlabel="final greedy return x", ylabel="share of agents above x", ylim=(-0.02, 1.02))
    for axes in (curves, profiles):
        axes.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside lower center", ncols=min(len(runs) + 1, 4))
    return figure


def table(rows: Sequence[Row], threshold: float | None) -> Any:
    """Returns the rows as a table for the terminal."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    title = "final greedy returns; improvement: probability of beating the first run"
    result = Table(title=title, show_lines=True, box=SIMPLE_HEAVY, padding=(0, 1, 0, 0))
    columns = ["run", "IQM [95%]", "worst", "improvement [95%]", "mean of curve"]
    if threshold is not None:
        columns.append(f"reached {threshold:.1f}, median step")
    any_diverged = any(row.num_diverged for row in rows)
    if any_diverged:
        columns.append("diverged")
    for column in columns:
        result.add_column(column, overflow="fold", min_width=WIDTHS.get(column))
    for row in rows:
        result.add_row(*_cells(row), *([str(row.num_diverged)] if any_diverged else []))
    return result


def _cells(row: Row) -> list[str]:
    """The cells of a row, without the number of agents that diverged."""
    probability, low, high = row.improvement
    cells = [
        f"{row.run}\n{row.agents} agents",
        f"{row.iqm:.1f}\n{interval(row.iqm_ci95)}",
        f"{row.worst:.1f}",
        f"{probability:.2f}\n{interval((low, high), places=2)}",
        f"{row.area:.1f}",
    ]
    if row.median_steps is not None:
        when = f"{row.median_steps:,.0f}" if np.isfinite(row.median_steps) else "never"
        cells.append(f"{row.num_reached} of {row.agents}\n{when}")
    return cells
