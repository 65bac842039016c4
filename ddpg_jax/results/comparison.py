"""Comparison of runs, and of the configurations of sweeps, with the first of them: a table and a figure."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAVY
from rich.console import Console, Group
from rich.table import Table

from ddpg_jax.axes import COMMON
from ddpg_jax.fields import format_value
from ddpg_jax.results import statistics
from ddpg_jax.results.history import History
from ddpg_jax.results.html_report import table_element
from ddpg_jax.results.plots import BLACK, COLORS, INTERVAL, draw_interval, new_figure, own_style
from ddpg_jax.results.summary import Summary
from ddpg_jax.results.text import decimal, interval
from ddpg_jax.sweep import SweptConfig, label

SAME = ("env_id", "env_args", "action_repeat")
"""Fields of the task that must be the same in all runs; differences in others of `COMMON` are named above the table."""


@dataclass(frozen=True)
class Run:
    """The results of a run, or of a configuration of a sweep, that are compared."""

    name: str
    task: Mapping[str, Any]  # the fields of `COMMON`
    steps: np.ndarray  # [E] environment steps per agent at the evaluations
    returns: np.ndarray  # [E, N] greedy returns of the agents that did not diverge
    final: np.ndarray  # [N] their final greedy returns
    num_diverged: int
    threshold: float | None  # evaluation return that counts as solved; None if the task defines none
    seed: int  # root seed
    seeds: np.ndarray  # [N] the agents' seeds

    @property
    def title(self) -> str:
        """The name, and the number of agents."""
        diverged = f", {self.num_diverged} diverged" if self.num_diverged else ""
        return f"{self.name} ({len(self.final)} agent{'s' * (len(self.final) != 1)}{diverged})"


@dataclass(frozen=True)
class Row:
    """The statistics of a run in a comparison. Returns are in the environment's units."""

    run: str
    agents: int  # without those that diverged
    num_diverged: int
    iqm: float  # interquartile mean of the final returns
    iqm_ci95: tuple[float, float]
    worst: float
    area: float  # greedy return averaged over the agents and over the steps of training
    improvement: tuple[float, float, float]  # probability of improvement over the first run, its 95% interval
    num_pairs: int  # agents with the same root seed and seed as one of the first run; 0 in the first run
    difference: tuple[float, float, float]  # interquartile mean over these pairs, its 95% interval; NaN without pairs
    num_reached: int | None  # agents that reached the threshold; None, like the next one, without a threshold
    median_steps: float | None  # until then; infinite if half of the agents never reach it


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Runs, compared with the first of them."""

    runs: tuple[Run, ...]  # without those that have no agent left
    rows: tuple[Row, ...]  # one per run
    notes: tuple[str, ...]  # differences between the runs, and which were left out
    threshold: float | None

    def __repr__(self) -> str:
        return f"Comparison({len(self.runs)} runs on {self.runs[0].task['env_id']})"

    def __str__(self) -> str:
        file = io.StringIO()
        Console(file=file, markup=False, emoji=False, width=80).print(self.table())
        return file.getvalue()

    def _repr_html_(self) -> str:
        columns, rows = self._cells()
        named = [[run.title, *cells[1:]] for run, cells in zip(self.runs, rows, strict=True)]
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return notes + table_element(["run", *columns[1:]], named)

    def table(self) -> Group:
        """Returns notes, the names of the runs and a table of their statistics, for a terminal of 80 columns."""
        columns, rows = self._cells()
        table = Table(show_lines=True, show_edge=False, box=SIMPLE_HEAVY, padding=(0, 1, 0, 0))
        for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
            table.add_column(column, min_width=max(len(line) for cell in cells for line in cell.splitlines()))
        for row in rows:
            table.add_row(*row)
        names = [f"{number}: {run.title}" for number, run in enumerate(self.runs, start=1)]
        words = ["", "final greedy returns; area: the greedy return averaged over training"]
        words += ["improvement: probability of beating run 1"]
        words += ["paired difference: IQM over pairs of equal seeds"] if any(row.num_pairs for row in self.rows) else []
        words += ["reached: agents with such an evaluation; median step"] if self.threshold is not None else []
        return Group(*self.notes, *names, *words, table)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Returns the names of the columns, and the cells of each row; no interval is wider than 16 characters."""
        places = 0 if max(abs(run.final).max() for run in self.runs) >= 1000 else 1
        none = "\N{EN DASH}"  # of the first run against itself
        improvements = [_with_interval(row.improvement, 2) for row in self.rows[1:]]
        columns = {
            "#": [str(number) for number in range(1, len(self.rows) + 1)],
            "IQM [95%]": [_with_interval((row.iqm, *row.iqm_ci95), places) for row in self.rows],
            "worst": [f"{row.worst:.{places}f}" for row in self.rows],
            "improvement [95%]": [none, *improvements],
        }
        if any(row.num_pairs for row in self.rows):
            differences = [_with_interval(row.difference, places) for row in self.rows[1:]]
            columns["paired difference [95%]"] = [none, *differences]
        columns["area"] = [f"{row.area:.{places}f}" for row in self.rows]
        if self.threshold is not None:
            reached = [f"{row.num_reached}/{row.agents}\n{row.median_steps:,.0f}" for row in self.rows]
            columns[f"reached {self.threshold:.1f}"] = [cell.replace("inf", "never") for cell in reached]
        return list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)]

    @own_style()
    def plot(self) -> Any:
        """Returns a Matplotlib figure: learning curves, and performance profiles of the final returns."""
        figure, (curves, profiles) = new_figure(size=(11, 4.4), columns=2)
        low, high = min(run.final.min() for run in self.runs), max(run.final.max() for run in self.runs)
        x = np.linspace(low - 0.05 * (high - low) - 1, high, 300)
        for run, color in zip(self.runs, cycle(COLORS[:-1]), strict=False):
            curves.plot(run.steps, statistics.iqm(run.returns, axis=1), color=color, linewidth=2, label=run.title)
            draw_interval(curves, run.steps, run.returns, color)
            profiles.plot(x, statistics.performance_profile(run.final, x), color=color, linewidth=2)
        if self.threshold is not None:
            text = f"threshold {self.threshold:.1f}"
            curves.axhline(self.threshold, color=BLACK, linestyle=":", linewidth=1, label=text)
        few = any(row.agents < statistics.FEWEST for row in self.rows)
        title = f"{INTERVAL}{f', from {statistics.FEWEST} agents on' if few else ''}"
        curves.set(xlabel="environment steps per agent", ylabel="greedy return, IQM", title=title)
        profiles.set(xlabel="final greedy return x", ylabel="share of agents above x", ylim=(-0.02, 1.02))
        figure.legend(frameon=False, loc="outside lower center", ncols=min(len(self.runs) + 1, 3))
        return figure


def runs_of(name: str, summary: Summary, history: History, swept: Sequence[SweptConfig]) -> list[Run]:
    """Returns what is compared of a run: the run, or each configuration of a sweep.

    Raises ValueError if the run was stopped before its end.
    """
    if not summary.complete:
        raise ValueError(f"{name} was stopped before its end, but must be finished to be compared")
    steps, returns = history.greedy_returns()
    final = np.asarray(summary.per_agent_final_return, np.float64)
    kept = (history.is_finite() & np.isfinite(final)).reshape(len(swept), -1)
    threshold = None
    if summary.eval_optimum is not None and summary.solved_shortfall is not None:
        threshold = summary.eval_optimum - summary.solved_shortfall
    runs = []
    for config, each in enumerate(swept):
        mine, task = kept[config], {field: getattr(each.config, field) for field in COMMON}
        curves = returns.reshape(len(steps), *kept.shape)[:, config, mine]
        # A callback may have ended this configuration before the others, and before `total_steps`.
        num = int(np.isfinite(curves).any(axis=1).sum()) if mine.any() else len(steps)
        task["total_steps"] = int(steps[num - 1]) if num else task["total_steps"]
        runs.append(
            Run(
                name=f"{name}: {label(each.values)}" if len(swept) > 1 else name,
                task=task,
                steps=steps[:num],
                returns=curves[:num],
                final=final.reshape(kept.shape)[config, mine],
                num_diverged=int(np.sum(~mine)),
                threshold=threshold,
                seed=summary.seed,
                seeds=summary.seeds[0] + np.flatnonzero(mine),
            )
        )
    return runs


def distinct_names(names: Sequence[str]) -> list[str]:
    """Returns the shortest ends of paths that tell them apart, such as a/run and b/run; equal ones are numbered."""
    parts = [name.rstrip("/").split("/") for name in names]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(each[-depth:]) for each in parts]
        if len(set(short)) == len(short):
            return short
    return [f"{each[-1]} ({number})" for number, each in enumerate(parts, start=1)]


def compare_runs(runs: Sequence[Run], threshold: float | None = None) -> Comparison:
    """Compares runs with the first of them. Those whose agents have all diverged are left out, and named.

    Args:
        runs: of the same task; ValueError names a field in which they differ, or says that no agent is left.
        threshold: evaluation return that counts as reached; default: the return at which the first run is solved.
    """
    if threshold is not None and not np.isfinite(threshold):
        raise ValueError(f"threshold is {threshold}, but must be a finite number")
    notes = [f"left out, because all agents diverged: {run.name}" for run in runs if not len(run.final)]
    kept = tuple(run for run in runs if len(run.final))
    if not kept:
        raise ValueError("runs have no agent that did not diverge, but must have one to be compared")
    notes += _differences(runs)
    threshold = kept[0].threshold if threshold is None else threshold
    rows = tuple(_row(run, kept[0], threshold) for run in kept)
    if any(row.agents < statistics.FEWEST for row in rows):
        notes.append(f"runs with {statistics.NO_INTERVAL}")
    return Comparison(kept, rows, tuple(notes), threshold)


def _differences(runs: Sequence[Run]) -> list[str]:
    """Returns the fields in which the runs differ, each in a sentence; ValueError names one that must be the same."""
    notes = []
    for field in COMMON:
        found: dict[str, str] = {}  # the value of a field -> the first run that has it
        for run in runs:
            found.setdefault(format_value(run.task[field]), run.name)
        where = [f"{value} in {name}" for value, name in found.items()]
        if len(where) > 1 and field in SAME:
            raise ValueError(f"{field} is {' and '.join(where[:2])}, but must be the same in all compared runs")
        notes += [f"{field} differs: {', '.join(where)}"] if len(where) > 1 else []
    return notes


def _row(run: Run, first: Run, threshold: float | None) -> Row:
    reached = None if threshold is None else statistics.steps_until(run.steps, run.returns, threshold)
    has_pairs = run is not first and run.seed == first.seed  # equal root seed and seed: equal random numbers
    common, mine, theirs = np.intersect1d(run.seeds if has_pairs else [], first.seeds, return_indices=True)
    return Row(
        run=run.name,
        agents=len(run.final),
        num_diverged=run.num_diverged,
        iqm=float(statistics.iqm(run.final)),
        iqm_ci95=statistics.iqm_interval(run.final),
        worst=float(np.min(run.final)),
        area=float(np.mean(statistics.area_under_curve(run.steps, run.returns))),
        improvement=statistics.probability_of_improvement(run.final, first.final),
        num_pairs=len(common),
        difference=statistics.paired_difference(run.final[mine], first.final[theirs]),
        num_reached=None if reached is None else int(np.sum(np.isfinite(reached))),
        median_steps=None if reached is None else float(np.median(np.nan_to_num(reached, nan=np.inf))),
    )


def _with_interval(statistic: Sequence[float], places: int) -> str:
    """Returns a statistic above its interval."""
    return f"{decimal(statistic[0], places)}\n{interval((statistic[1], statistic[2]), places)}".strip()
