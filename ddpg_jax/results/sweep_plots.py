"""Figures of a sweep: the points' learning curves, and what they reached against what was swept."""

from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.results.history import History
from ddpg_jax.results.plots import BLUE, ORANGE, new_figure
from ddpg_jax.results.statistics import iqm, iqm_interval
from ddpg_jax.values import shown, words

MOST_CURVES = 8
"""Points whose learning curves are told apart by colour: the best."""

MOST_ROWS = 40
"""Points in a ranking, at most."""


def learning_curves(path: Path, histories: list[History], summary: dict[str, Any], optimum: float | None) -> None:
    """Greedy return against environment steps: the interquartile mean of each point, the best ones named.

    Args:
        path: where the PNG goes.
        histories: of all agents.
        summary: of the sweep.
        optimum: the highest mean return that can be reached, if it is known.
    """
    from matplotlib import colormaps

    steps = np.array([step for step, _ in histories[0].evaluations])
    returns = np.concatenate([[values for _, values in history.evaluations] for history in histories], axis=1)
    sound = np.concatenate([history.sound() for history in histories])
    curves = np.where(sound, returns, np.nan).reshape(len(steps), len(summary["points"]), -1)
    title = f"{summary['preset']} on {summary['env_id']}: {len(summary['points'])} points x {curves.shape[2]} seeds"
    y_label = "greedy return: IQM of a point's seeds"
    figure, axes = new_figure(title, "environment steps of each agent", y_label, size=(10, 4.8))
    ranked = sorted(summary["points"], key=lambda point: point["rank"])
    colors = colormaps["viridis"](np.linspace(0, 0.9, min(MOST_CURVES, len(ranked))))
    for point in ranked[MOST_CURVES:]:
        axes.plot(steps, _centre(curves[:, point["point"]]), color="0.75", linewidth=0.8)
    for point, color in zip(ranked, colors, strict=False):
        label = f"{point['rank']}. {words(point['values'])}"
        axes.plot(steps, _centre(curves[:, point["point"]]), color=color, linewidth=1.8, label=label)
    _band(axes, steps, curves[:, ranked[0]["point"]], colors[0])
    if optimum is not None:
        axes.axhline(optimum, color=ORANGE, linestyle="--", linewidth=1.2, label=f"optimum, {optimum:.1f}")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path)


def _band(axes: Any, steps: np.ndarray, values: np.ndarray, color: Any) -> None:
    """The 95% interval of the values' [E, S] interquartile mean."""
    fine = values[:, np.isfinite(values).all(axis=0)]
    if fine.shape[1] > 1:
        low, high = np.array([iqm_interval(row) for row in fine]).T
        axes.fill_between(
            steps, low, high, color=color, alpha=0.2, linewidth=0, label="95% bootstrap interval of the first"
        )


def _centre(values: np.ndarray) -> np.ndarray:
    """Interquartile mean [E] of the values [E, S] of the seeds that are sound."""
    fine = values[:, np.isfinite(values).all(axis=0)]
    return iqm(fine, axis=1) if fine.shape[1] else np.full(len(values), np.nan)


def swept(path: Path, summary: dict[str, Any]) -> None:
    """What the points reached: a line over one swept field, a heat map over two, else a ranking.

    Args:
        path: where the PNG goes.
        summary: of the sweep.
    """
    points = summary["points"]
    fields = list(points[0]["values"])
    axes_values = [_in_order({_key(point["values"][field]) for point in points}) for field in fields]
    if len(fields) == 1:
        figure = _line(points, fields[0], axes_values[0])
    elif len(fields) == 2 and len(points) == len(axes_values[0]) * len(axes_values[1]):
        figure = _heat_map(points, fields, axes_values)
    else:
        figure = _ranking(points)
    figure.savefig(path)


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _in_order(values: set[Any]) -> list[Any]:
    return sorted(values, key=lambda value: (isinstance(value, str), value is None, value if value is not None else 0))


def _line(points: list[dict[str, Any]], field: str, values: list[Any]) -> Any:
    figure, axes = new_figure(f"{field}: {_title(points)}", field, "final greedy return")
    by_value = {_key(point["values"][field]): point["final_return"] for point in points}
    found = [by_value[value] for value in values]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    x = np.array(values, float) if numeric else np.arange(len(values))
    if numeric and x.min() > 0 and x.max() >= 8 * x.min():
        axes.set_xscale("log")
    axes.set_xticks(x, [shown(value) for value in values])
    axes.minorticks_off()
    low, high = np.array([_interval(final) for final in found]).T
    axes.fill_between(x, low, high, color=BLUE, alpha=0.25, linewidth=0, label="95% bootstrap interval")
    axes.plot(x, [_number(final["iqm"]) for final in found], "o-", color=BLUE, label="interquartile mean")
    axes.plot(x, [_number(final["worst"]) for final in found], "v", color=ORANGE, label="worst agent")
    axes.legend(frameon=False)
    return figure


def _heat_map(points: list[dict[str, Any]], fields: list[str], values: list[list[Any]]) -> Any:
    title = "final greedy return: IQM and its 95% bootstrap interval"
    figure, axes = new_figure(title, fields[1], fields[0])
    grid = np.full([len(axis) for axis in values], np.nan)
    texts = {}
    for point in points:
        cell = tuple(axis.index(_key(point["values"][field])) for axis, field in zip(values, fields, strict=True))
        grid[cell] = _number(point["final_return"]["iqm"])
        low, high = _interval(point["final_return"])
        texts[cell] = f"{grid[cell]:.1f}\n[{low:.1f}, {high:.1f}]".replace("-", "\N{MINUS SIGN}")
    axes.grid(visible=False)
    image = axes.imshow(grid, cmap="viridis", aspect="auto", origin="lower")
    dark = np.nanmin(grid) + 0.6 * (np.nanmax(grid) - np.nanmin(grid))
    for (row, column), text in texts.items():
        color = "white" if not grid[row, column] > dark else "black"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
    for set_ticks, axis in zip((axes.set_yticks, axes.set_xticks), values, strict=True):
        set_ticks(range(len(axis)), [shown(value) for value in axis])
    figure.colorbar(image, label="final greedy return, IQM")
    return figure


def _ranking(points: list[dict[str, Any]]) -> Any:
    ranked = sorted(points, key=lambda point: point["rank"])[:MOST_ROWS]
    height = max(3.2, 0.28 * len(ranked) + 1.2)
    title = f"the best {len(ranked)} of {len(points)} points" if len(ranked) < len(points) else _title(points)
    figure, axes = new_figure(title, "final greedy return", "", size=(9, height))
    rows = np.arange(len(ranked))
    centres = np.array([_number(point["final_return"]["iqm"]) for point in ranked])
    low, high = np.array([_interval(point["final_return"]) for point in ranked]).T
    axes.hlines(rows, low, high, color=BLUE, linewidth=3, alpha=0.4, label="95% bootstrap interval")
    axes.plot(centres, rows, "o", color=BLUE, label="interquartile mean")
    axes.set_yticks(rows, [f"{point['rank']}. {words(point['values'])}" for point in ranked], fontsize="small")
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="lower left")
    return figure


def _title(points: list[dict[str, Any]]) -> str:
    return f"{len(points)} points"


def _interval(final: dict[str, Any]) -> tuple[float, float]:
    """The interval of a point's returns; the value itself where one seed gives none."""
    low, high = map(_number, final["iqm_ci95"])
    return (low, high) if np.isfinite(low) else (_number(final["iqm"]), _number(final["iqm"]))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
