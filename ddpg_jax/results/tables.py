"""What a finished run has to say: the rows of its tables, in words and figures with their units."""

from typing import Any

import numpy as np
from rich.table import Table

from ddpg_jax.results import statistics
from ddpg_jax.values import shown

MOST_POINTS = 20
"""Points of a sweep in the terminal; `points.csv` has them all."""


def result_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures of a finished run: labels, which are empty where a row continues the one above, and texts."""
    rows = [] if "points" in summary else _returns(summary)
    for agent, step in zip(summary["diverged_agents"], summary["diverged_at_env_steps"], strict=True):
        rows.append(("diverged, left out", f"agent {agent} at step {step:,}"))
    rows.append(("greedy episodes", f"{summary['final_episodes']:,} an agent, from common start states"))
    rows.append(("environment steps", f"{summary['env_steps_per_agent']:,} an agent"))
    if summary["updates_per_agent"] is not None:
        rows.append(("updates", f"{summary['updates_per_agent']:,} an agent"))
    rows.append(("compilation", f"{summary['compile_seconds']:.1f} s"))
    rows.append(("training", f"{summary['train_seconds']:.1f} s, {summary['updates_per_second']:,.0f} updates/s"))
    share = summary["checkpoint_seconds"] / summary["wall_seconds"]
    rows.append(("checkpoints", f"{summary['checkpoint_seconds']:.1f} s, {100 * share:.1f}% of the run"))
    rows.append(("in all", f"{summary['wall_seconds']:.1f} s on {summary['device']}"))
    return rows


def _returns(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What the agents reached."""
    final, shortfall, last = summary["final_return"], summary.get("final_shortfall"), summary["train_return_last_40"]
    rows = []
    if final["iqm"] is not None:
        interval = _interval(final["iqm_ci95"])
        rows += [
            ("final greedy return", f"mean {final['mean']:.1f}"),
            ("", f"median {final['median']:.1f}"),
            ("", f"IQM {final['iqm']:.1f}" + (f", 95% {interval}" if interval else "")),
            ("", f"worst agent {final['worst']:.1f}, best {final['best']:.1f}"),
        ]
    if shortfall and shortfall["mean"] is not None:
        rows += [
            ("shortfall to the optimum", f"mean {shortfall['mean']:.1f}, worst {shortfall['worst']:.1f}"),
            ("", f"IQM {shortfall['iqm']:.1f}"),
            ("solved (shortfall <= 20)", f"{shortfall['num_solved']} of {summary['num_agents']} agents"),
        ]
    if last["mean"] is not None:
        rows.append(("last 40 training returns", f"mean {last['mean']:.1f}"))
    return rows


def ranking(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a sweep's ranking, the best point first."""
    points = sorted(summary["points"], key=lambda point: point["rank"])
    fields = list(points[0]["values"])
    columns = ["rank", "point", *fields, "IQM", "95%", "worst", "solved", "against the first, paired", "supported"]
    return columns, [_ranking_row(point, fields) for point in points]


def _ranking_row(point: dict[str, Any], fields: list[str]) -> list[str]:
    final, against = point["final_return"], point["against_best"]
    first = point["rank"] == 1
    return [
        str(point["rank"]),
        str(point["point"]),
        *(shown(point["values"][field]) for field in fields),
        _shown(final["iqm"]),
        _interval(final["iqm_ci95"]),
        _shown(final["worst"]),
        str(point["final_shortfall"]["num_solved"]) if "final_shortfall" in point else "",
        "" if first else f"{_shown(against['mean'])} {_interval(against['ci95'])}".strip(),
        "" if first else "yes" if _supported(point) else "no",
    ]


def _supported(point: dict[str, Any]) -> bool:
    p_value = point["against_best"]["p_adjusted"]
    return p_value is not None and bool(p_value <= statistics.SUPPORTED)


def _shown(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.1f}"


def _interval(bounds: Any) -> str:
    return f"[{bounds[0]:.1f}, {bounds[1]:.1f}]" if None not in bounds and np.isfinite(bounds).all() else ""


def conclusion(summary: dict[str, Any]) -> str:
    """What the seeds of a sweep can and cannot support."""
    num_points, seeds = len(summary["points"]), summary["num_seeds"]
    others = [point for point in summary["points"] if point["rank"] > 1]
    worse = sum(map(_supported, others))
    test = f"Wilcoxon's signed-rank test over {seeds} pairs of seeds, adjusted for all pairs of points"
    if statistics.least_p_value(num_points, seeds) > statistics.SUPPORTED:
        return f"{seeds} seeds cannot support any difference among {num_points} points ({test}): use more seeds"
    if worse == 0:
        return f"{seeds} seeds cannot tell any other point from the first ({test}, at 5%)"
    rest = len(others) - worse
    text = f"the seeds support at 5% that {worse} of the {len(others)} other points rank below the first"
    return f"{text}{f', and cannot tell {rest} from it' if rest else ''} ({test})"


def result_table(summary: dict[str, Any], folder: str) -> Table:
    """The figures of a finished run for the terminal."""
    title = f"{summary['num_agents']} agents on {summary['env_id']}, preset {summary['preset']}"
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for row in (*result_rows(summary), ("files", folder)):
        table.add_row(*row)
    return table


def ranking_table(summary: dict[str, Any]) -> Table:
    """The points of a sweep for the terminal, the best first."""
    columns, rows = ranking(summary)
    left = len(rows) - MOST_POINTS
    table = Table(
        title=f"{len(rows)} points x {summary['num_seeds']} seeds: final greedy return",
        caption=f"and {left} more in points.csv" if left > 0 else None,
    )
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows[:MOST_POINTS]:
        table.add_row(*row)
    return table
