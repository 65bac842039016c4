"""`python -m ddpg_jax.compare RUN RUN …`: a table and a figure from the folders of any number of runs."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ddpg_jax.command_line import parse
from ddpg_jax.processes.output import endure
from ddpg_jax.results import statistics
from ddpg_jax.results.history import History
from ddpg_jax.values import words


@dataclass(frozen=True)
class Options:
    """Compares finished runs, and the points of sweeps: interquartile means, probability of improvement over the first,
    steps until solved.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders; the first is the one that the others are compared with."""
    threshold: float | None = None
    """Evaluation return that counts as reached; None: 20 below the optimum where it is known."""
    figure: Path | None = None
    """Where the figure goes; None: comparison.png here."""


@dataclass(frozen=True)
class Run:
    """What a comparison needs of a run."""

    name: str
    env_id: str
    steps: np.ndarray
    """[E] environment steps of its evaluations."""
    returns: np.ndarray
    """[E, N] of its agents that did not diverge."""
    final: np.ndarray
    """[N] final returns."""
    num_diverged: int
    threshold: float | None
    """Evaluation return that counts as solved: 20 below the optimum from the same start states, where it is known."""


def read_runs(folder: Path) -> list[Run]:
    """A finished run's results; of a sweep those of each of its points.

    Raises:
        ValueError: if the folder is not one of a finished run, or all of its agents diverged.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text())
        table = np.atleast_1d(np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True))
        final = np.asarray(summary["per_agent_final_return"], float)
        sound = np.isin(np.arange(len(final)), summary["diverged_agents"], invert=True)
        optimum = summary.get("eval_optimum")
        steps = np.unique(table["env_steps"])
        returns = table["eval_return"].reshape(len(steps), len(final))
        points = summary.get("points", [{"values": {}}])
        env_id = summary["env_id"]
        names = [f"{folder.name}: {words(point['values'])}" if point["values"] else folder.name for point in points]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is not the folder of a finished run: {error}") from error
    runs = []
    for name, agents in zip(names, np.array_split(np.arange(len(final)), len(points)), strict=True):
        fine = agents[sound[agents]]
        if not len(fine):
            raise ValueError(f"{name} has no agent that did not diverge")
        threshold = None if optimum is None else optimum - statistics.SOLVED_SHORTFALL
        runs.append(Run(name, env_id, steps, returns[:, fine], final[fine], len(agents) - len(fine), threshold))
    return runs


def run_of(name: str, history: History, threshold: float | None = None) -> Run:
    """What agents in memory (`ddpg_jax.train`) have shown, to be compared like a run folder."""
    steps, returns = history.greedy_returns()
    returns = returns[:, history.sound()]
    return Run(name, history.config.env_id, steps, returns, returns[-1], len(history.diverged), threshold)


def compare(runs: list[Run], threshold: float | None) -> list[dict[str, Any]]:
    """A row for each run; the probability of improvement is over the first."""
    rows = []
    for run in runs:
        low, high = statistics.iqm_interval(run.final)
        improvement = statistics.probability_of_improvement(run.final, runs[0].final)
        reached = None if threshold is None else statistics.steps_until(run.steps, run.returns, threshold)
        rows.append(
            {
                "run": run.name,
                "agents": len(run.final),
                "iqm": float(statistics.iqm(run.final)),
                "iqm_ci95": (low, high),
                "worst": float(np.min(run.final)),
                "area": float(np.mean(statistics.area_under_curve(run.steps, run.returns))),
                "improvement": improvement,
                "num_reached": None if reached is None else int(np.sum(np.isfinite(reached))),
                "median_steps": None if reached is None else _median_with_never(reached),
                "num_diverged": run.num_diverged,
            }
        )
    return rows


def _median_with_never(steps: np.ndarray) -> float:
    """The median of steps of which NaN means never; infinite where half of them never were."""
    return float(np.median(np.where(np.isnan(steps), np.inf, steps)))


def draw(runs: list[Run], threshold: float | None) -> Any:
    """A figure with learning curves on the left, performance profiles of the final returns on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    curves, profiles = figure.subplots(1, 2)
    low, high = min(run.final.min() for run in runs), max(run.final.max() for run in runs)
    thresholds = np.linspace(low - 0.05 * (high - low) - 1, high, 300)
    for run, color in zip(runs, COLORS * len(runs), strict=False):
        intervals = np.array([statistics.iqm_interval(row) for row in run.returns])
        curves.fill_between(run.steps, *intervals.T, color=color, alpha=0.2, linewidth=0)
        curves.plot(run.steps, statistics.iqm(run.returns, axis=1), color=color, linewidth=2, label=run.name)
        profiles.plot(thresholds, statistics.performance_profile(run.final, thresholds), color=color, linewidth=2)
    if threshold is not None:
        curves.axhline(threshold, color="black", linestyle=":", linewidth=1, label=f"threshold {threshold:.1f}")
    curves.set(xlabel="environment steps of each agent", ylabel="greedy return: IQM and its 95% interval")
    profiles.set(xlabel="final greedy return x", ylabel="share of agents above x", ylim=(-0.02, 1.02))
    for axes in (curves, profiles):
        axes.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside lower center", ncols=min(len(runs) + 1, 4))
    return figure


COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""Okabe & Ito 2008."""


WIDTHS = {"IQM [95%]": 18, "improvement [95%]": 12, "run": 9}
"""Least widths of columns in characters: an interval stays on its line."""


def table(rows: list[dict[str, Any]], threshold: float | None) -> Any:
    """The rows for the terminal."""
    from rich.box import SIMPLE_HEAVY
    from rich.table import Table

    result = Table(title="final greedy returns; improvement: probability to beat the first", show_lines=True,
                   box=SIMPLE_HEAVY, padding=(0, 1, 0, 0))  # fmt: skip
    columns = ["run", "IQM [95%]", "worst", "improvement [95%]", "mean of curve"]
    if threshold is not None:
        columns += [f"reached {threshold:.1f}, median step"]
    any_diverged = any(row["num_diverged"] for row in rows)
    for column in [*columns, *(["diverged"] if any_diverged else [])]:
        result.add_column(column, overflow="fold", min_width=WIDTHS.get(column))
    for row in rows:
        cells = [
            f"{row['run']}\n{row['agents']} agents",
            f"{row['iqm']:.1f}\n[{row['iqm_ci95'][0]:.1f}, {row['iqm_ci95'][1]:.1f}]",
            f"{row['worst']:.1f}",
            "{:.2f}\n[{:.2f}, {:.2f}]".format(*row["improvement"]),
            f"{row['area']:.1f}",
        ]
        if threshold is not None:
            never = not np.isfinite(row["median_steps"])
            when = "never" if never else f"{row['median_steps']:,.0f}"
            cells += [f"{row['num_reached']} of {row['agents']}\n{when}"]
        result.add_row(*cells, *([str(row["num_diverged"])] if any_diverged else []))
    return result


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.compare")
    try:
        if not options.runs:
            raise ValueError("runs is empty, but must name at least one run folder")
        runs = [run for folder in options.runs for run in read_runs(folder)]
        if len({run.env_id for run in runs}) > 1:
            raise ValueError(f"the runs are on different environments: {', '.join(sorted({r.env_id for r in runs}))}")
        threshold = runs[0].threshold if options.threshold is None else options.threshold
        if threshold is not None and not np.isfinite(threshold):
            raise ValueError(f"threshold is {threshold}, but must be a finite number")
        figure = options.figure or Path("comparison.png")
        if figure.suffix not in (".png", ".pdf", ".svg"):
            raise ValueError(f"figure is {figure}, but must be a file *.png, *.pdf or *.svg")
        draw(runs, threshold).savefig(figure)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: figure is {figure}, but must be a file that can be written: {error.strerror}", file=sys.stderr)
        return 2
    from rich.console import Console

    Console().print(table(compare(runs, threshold), threshold))
    print(f"figure: {figure}")
    return 0


if __name__ == "__main__":
    endure()
    sys.exit(main())
