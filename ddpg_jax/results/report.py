"""The results of a finished run in words: tables for the terminal and for `report.html`, with their units."""

from math import isfinite

from rich.box import SIMPLE_HEAVY
from rich.table import Table

from ddpg_jax.results import statistics
from ddpg_jax.results.summary import PointSummary, Summary
from ddpg_jax.values import decimal, interval, shown

MOST_POINTS = 20
"""Points of a sweep in the terminal, at most; `points.csv` has them all."""

MOST_AGENTS = 8
"""Agents that a row names, at most; `summary.json` has them all."""

IQM, PAIRED = "IQM [95%]", "difference to the first, paired"
UNBROKEN = ("rank", "point", "worst", "solved", "supported")
"""Columns of a ranking that keep to one line; those with intervals, above, and those of swept fields need not."""

INTERVAL_WIDTH = 9
"""Least width in characters of a column with intervals, so that no number in it is broken."""


def result_rows(summary: Summary) -> list[tuple[str, str]]:
    """Returns the results as labels and texts; a label is empty where a row continues the one above."""
    rows = [] if summary.points else _return_rows(summary)
    for agent, step in summary.diverged.items():
        rows.append(("diverged, left out", f"agent {agent} at step {step:,}"))
    if summary.always_at_bounds:
        rows.append(("only act at their bounds", _named(summary.always_at_bounds)))
    rows.append(("greedy episodes", f"{summary.final_episodes:,} per agent, from common start states"))
    rows.append(("environment steps", f"{summary.env_steps_per_agent:,} per agent"))
    if summary.updates_per_agent is not None:
        rows.append(("updates", f"{summary.updates_per_agent:,} per agent"))
    rows.append(("compilation", f"{summary.compile_seconds:.1f} s"))
    rows.append(("training", f"{summary.train_seconds:.1f} s, {summary.updates_per_second:,.0f} updates/s"))
    rows.append(("evaluation", f"{summary.evaluation_seconds:.1f} s"))
    share = summary.checkpoint_seconds / summary.wall_seconds
    rows.append(("checkpoints", f"{summary.checkpoint_seconds:.1f} s, {100 * share:.1f}% of the run"))
    rows.append(("whole run", f"{summary.wall_seconds:.1f} s on {summary.device}"))
    return rows


def _named(agents: list[int]) -> str:
    """Returns the numbers of agents in words, at most `MOST_AGENTS` of them."""
    named = ", ".join(map(str, agents[:MOST_AGENTS]))
    more = len(agents) - MOST_AGENTS
    return f"agent{'s' if len(agents) > 1 else ''} {named}{f' and {more} more' if more > 0 else ''}"


def _return_rows(summary: Summary) -> list[tuple[str, str]]:
    """The rows about returns; there are none if all agents diverged."""
    final, shortfall, last = summary.final_return, summary.final_shortfall, summary.train_return_last_40
    if not isfinite(final.iqm):
        return []
    ci95 = interval(final.iqm_ci95)
    rows = [
        ("final greedy return", f"mean {final.mean:.1f}"),
        ("", f"median {final.median:.1f}"),
        ("", f"IQM {final.iqm:.1f}" + (f", 95% {ci95}" if ci95 else "")),
        ("", f"worst agent {final.worst:.1f}, best {final.best:.1f}"),
    ]
    if shortfall is not None:
        rows.append(("shortfall to the optimum", f"mean {shortfall.mean:.1f}, worst {shortfall.worst:.1f}"))
        rows.append(("", f"IQM {shortfall.iqm:.1f}"))
        if shortfall.num_solved is not None:
            label = f"solved (shortfall <= {shown(summary.solved_shortfall)})"
            rows.append((label, f"{shortfall.num_solved} of {summary.num_agents} agents"))
    if isfinite(last.mean):
        rows.append(("last 40 training returns", f"mean {last.mean:.1f}"))
    return rows


def ranking(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Returns the column names and the rows of a sweep's ranking, the best point first."""
    points = summary.ranked()
    fields = list(points[0].values)
    solved = ["solved"] if summary.solved_shortfall is not None else []
    columns = ["rank", "point", *fields, IQM, "worst", *solved, PAIRED, "supported"]
    return columns, [_ranking_row(point) for point in points]


def _ranking_row(point: PointSummary) -> list[str]:
    final, shortfall, against = point.final_return, point.final_shortfall, point.against_best
    solved = [] if shortfall is None or shortfall.num_solved is None else [str(shortfall.num_solved)]
    difference = f"{decimal(against.mean)} {interval(against.ci95)}".strip()
    return [
        str(point.rank),
        str(point.point),
        *map(shown, point.values.values()),
        f"{decimal(final.iqm)} {interval(final.iqm_ci95)}".strip(),
        decimal(final.worst),
        *solved,
        *(("", "") if point.rank == 1 else (difference, "yes" if _is_supported(point) else "no")),
    ]


def _is_supported(point: PointSummary) -> bool:
    """Whether the seeds support that the point is worse than the best one; False where all its agents diverged."""
    return point.against_best.p_adjusted <= statistics.SUPPORTED


def conclusion(summary: Summary) -> str:
    """Returns, in a sentence without its full stop, which differences the seeds of a sweep support."""
    points = summary.ranked()
    others, num_seeds = points[1:], summary.num_agents // len(points)
    worse = sum(map(_is_supported, others))
    test = f"Wilcoxon's signed-rank test over {num_seeds} pairs of seeds, adjusted for all pairs of points"
    if statistics.least_p_value(len(points), num_seeds) > statistics.SUPPORTED:
        return f"{num_seeds} seeds cannot support any difference among {len(points)} points ({test}): use more seeds"
    if worse == 0:
        return f"{num_seeds} seeds cannot tell any other point from the first ({test}, at 5%)"
    rest = len(others) - worse
    text = f"the seeds support at 5% that {worse} of the {len(others)} other points are worse than the first"
    return f"{text}{f', and cannot tell {rest} from it' if rest else ''} ({test})"


def result_table(summary: Summary, folder: str) -> Table:
    """Returns the results of a finished run as a table for the terminal."""
    title = f"{summary.num_agents} agents on {summary.env_id}, {summary.presets}"
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for row in (*result_rows(summary), ("files", folder)):
        table.add_row(*row)
    return table


def ranking_table(summary: Summary) -> Table:
    """Returns the best points of a sweep as a table for the terminal."""
    columns, rows = ranking(summary)
    left = len(rows) - MOST_POINTS
    table = Table(
        title=f"{len(rows)} points x {summary.num_seeds} seeds: final greedy return",
        caption=f"and {left} more in points.csv" if left > 0 else None,
        box=SIMPLE_HEAVY,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        is_interval = column in (IQM, PAIRED)
        least = INTERVAL_WIDTH if is_interval else None
        table.add_column(column, justify="right", overflow="fold", min_width=least, no_wrap=column in UNBROKEN)
    for row in rows[:MOST_POINTS]:
        table.add_row(*row)
    return table
