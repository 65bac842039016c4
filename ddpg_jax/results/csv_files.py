"""The text of `metrics.csv`, `episodes.csv` and `configs.csv`, made from numbers when a table is written."""

import csv
import io
from math import isfinite

import numpy as np

from ddpg_jax.fields import format_value
from ddpg_jax.results.history import History
from ddpg_jax.results.summary import Summary

FLOAT32_DIGITS = 9
"""Significant digits that tell any two float32 numbers apart."""
CONFIG_DIGITS = 6
"""Significant digits of the statistics in `configs.csv`."""


def metrics_csv(history: History, seeds: range, num_configs: int = 1) -> str:
    """Returns the text of `metrics.csv`: one row per agent per evaluation, by environment steps, then by agent.

    The table of several configurations, with these seeds each, also has the columns `config` and `seed`.
    """
    return _text(metrics_columns(history, seeds, num_configs))


def metrics_columns(history: History, seeds: range, num_configs: int = 1) -> dict[str, np.ndarray]:
    """Returns the columns of `metrics.csv` with their names (see `metrics_csv`)."""
    columns = {
        "agent": np.tile(history.agents, len(history.evaluation_steps)),
        "env_steps": np.repeat(history.evaluation_steps, len(history.agents)),
        "updates": history.updates.ravel(),
        **{name: column.ravel() for name, column in history.metrics._asdict().items()},
    }
    evaluated = columns["updates"] >= 0
    return _sorted({name: column[evaluated] for name, column in columns.items()}, seeds, num_configs)


def episodes_csv(history: History, seeds: range, num_configs: int = 1) -> str:
    """Returns the text of `episodes.csv`: one row per training episode, in the order of `metrics_csv`."""
    columns = {name.removeprefix("episode_"): column for name, column in history.episodes._asdict().items()}
    return _text(_sorted(columns, seeds, num_configs))


def _sorted(columns: dict[str, np.ndarray], seeds: range, num_configs: int) -> dict[str, np.ndarray]:
    """Returns columns sorted by environment steps, then by agent; in a sweep also with `config` and `seed`."""
    order = np.lexsort((columns["agent"], columns["env_steps"]))
    columns = {name: column[order] for name, column in columns.items()}
    if num_configs > 1:
        config, seed = np.divmod(columns["agent"] - seeds.start, len(seeds))
        columns = {"agent": columns["agent"], "config": config, "seed": seeds.start + seed} | columns
    return columns


def _text(columns: dict[str, np.ndarray]) -> str:
    kinds = [str if np.issubdtype(column.dtype, np.integer) else _significant for column in columns.values()]
    cells = [map(kind, column.tolist()) for kind, column in zip(kinds, columns.values(), strict=True)]
    return "\n".join([",".join(columns), *map(",".join, zip(*cells, strict=True))]) + "\n"


def _significant(value: float, digits: int = FLOAT32_DIGITS) -> str:
    """Returns a number with at most this many significant digits; an empty text if it is not finite."""
    return f"{value:.{digits}g}" if isfinite(value) else ""


def configs_csv(summary: Summary) -> str:
    """Returns the text of `configs.csv`: the configurations of a sweep with their results, the best first."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["rank", "config", *summary.swept_fields, "final_return_iqm", "ci95_low", "ci95_high", "worst", "num_solved",
         "num_diverged", "against_best_iqm", "against_best_low", "against_best_high", "p_adjusted"]
    )  # fmt: skip
    for each in summary.ranked():
        final, against = each.final_return, each.against_best
        num_solved = each.final_shortfall.num_solved if each.final_shortfall else None  # None is an empty cell
        values = [format_value(each.values.get(field, "")) for field in summary.swept_fields]
        numbers = (final.iqm, *final.iqm_ci95, final.worst, against.iqm, *against.ci95, against.p_adjusted)
        cells = [_significant(number, CONFIG_DIGITS) for number in numbers]
        writer.writerow([each.rank, each.config, *values, *cells[:4], num_solved, each.num_diverged, *cells[4:]])
    return file.getvalue()
