"""The text of `metrics.csv`, `episodes.csv` and `points.csv`, made from numbers when a table is written."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from ddpg_jax.results.history import Episodes, History
from ddpg_jax.results.summary import Summary
from ddpg_jax.values import shown, significant

FLOAT32_DIGITS = 9
"""Significant digits that tell any two float32 numbers apart."""

POINT_DIGITS = 6
"""Significant digits of the statistics in `points.csv`."""


def metrics_csv(histories: Sequence[History], num_seeds: int | None = None) -> str:
    """Returns the text of `metrics.csv`: one row per agent per evaluation, by environment steps, then by agent.

    Args:
        histories: of all agents.
        num_seeds: in a sweep, the agents per point; the table then has the columns `point` and `seed` in addition.
    """
    return _agents_csv([_metrics_columns(history) for history in histories], num_seeds)


def episodes_csv(histories: Sequence[History], num_seeds: int | None = None) -> str:
    """Returns the text of `episodes.csv`: one row per training episode, in the order of `metrics_csv`."""
    return _agents_csv([_episodes_columns(history.all_episodes()) for history in histories], num_seeds)


def _metrics_columns(history: History) -> dict[str, np.ndarray]:
    """The columns of `metrics.csv` with their names, [E N] each."""
    num_evaluations, num_agents = len(history.evaluation_steps), len(history.agents)
    return {
        "agent": np.tile(history.agents, num_evaluations),
        "env_steps": np.repeat(history.evaluation_steps, num_agents),
        "updates": np.repeat(history.updates, num_agents),
        **{name: column.ravel() for name, column in history.metrics._asdict().items()},
    }


def _episodes_columns(episodes: Episodes) -> dict[str, np.ndarray]:
    """The columns of `episodes.csv` with their names."""
    names = {"episode_return": "return"}
    return {names.get(name, name): column for name, column in episodes._asdict().items()}


def _agents_csv(tables: Sequence[dict[str, np.ndarray]], num_seeds: int | None) -> str:
    """The text of tables with equal columns, among them `agent` and `env_steps`, by which the rows are sorted."""
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    order = np.lexsort((columns["agent"], columns["env_steps"]))
    if num_seeds is not None:
        point, seed = np.divmod(columns["agent"], num_seeds)
        columns = {"agent": columns["agent"], "point": point, "seed": seed} | columns
    rows = zip(*(_cells(column[order]) for column in columns.values()), strict=True)
    return "\n".join([",".join(columns), *map(",".join, rows)]) + "\n"


def _cells(column: np.ndarray) -> Iterable[str]:
    """The cells of a column, empty where a number is not finite."""
    if np.issubdtype(column.dtype, np.integer):
        return map(str, column.tolist())
    return (significant(value, FLOAT32_DIGITS) for value in column.tolist())


def points_csv(summary: Summary) -> str:
    """Returns the text of `points.csv`: the points of a sweep with their results, the best first."""
    points = summary.ranked()
    fields = list(points[0].values)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["rank", "point", *fields, "final_return_iqm", "ci95_low", "ci95_high", "worst", "num_solved",
         "against_best_mean", "against_best_low", "against_best_high", "p_adjusted"]
    )  # fmt: skip
    for point in points:
        final, against = point.final_return, point.against_best
        num_solved = point.final_shortfall.num_solved if point.final_shortfall else None
        writer.writerow(
            [point.rank, point.point, *(shown(point.values[field]) for field in fields),
             *(significant(value, POINT_DIGITS) for value in (final.iqm, *final.iqm_ci95, final.worst)),
             "" if num_solved is None else num_solved,
             *(significant(value, POINT_DIGITS) for value in (against.mean, *against.ci95, against.p_adjusted))]
        )  # fmt: skip
    return file.getvalue()
