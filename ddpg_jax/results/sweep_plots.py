"""Figures of a sweep: the learning curves of its points, and their final returns over the swept fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.results.history import History
from ddpg_jax.results.plots import BLUE, ORANGE, greedy_curves, new_figure
from ddpg_jax.results.statistics import Returns, iqm, iqm_interval
from ddpg_jax.results.summary import PointSummary, Summary
from ddpg_jax.values import decimal, interval, shown, words

MOST_CURVES = 8
"""Points whose learning curves have a colour of their own, at most: the best."""

MOST_ROWS = 40
"""Points in a ranking, at most."""


def learning_curves(path: Path, histories: Sequence[History], summary: Summary) -> None:
    """Draws the interquartile mean of each point's greedy returns against environment steps, the best points named.

    Args:
        path: file of the PNG.
        histories: of all agents.
        summary: of the sweep.
    """
    from matplotlib import colormaps

    ranked = summary.ranked()
    steps, returns = greedy_curves(histories)
    curves = returns.reshape(len(steps), len(ranked), -1)
    title = f"{summary.subject}: {len(ranked)} points x {curves.shape[2]} seeds"
    y_label = "greedy return: IQM of a point's seeds"
    figure, axes = new_figure(title, "environment steps per agent", y_label, size=(10, 4.8))
    colors = colormaps["viridis"](np.linspace(0, 0.9, min(MOST_CURVES, len(ranked))))
    for point in ranked[MOST_CURVES:]:
        axes.plot(steps, _iqm_of_finite(curves[:, point.point]), color="0.75", linewidth=0.8)
    for point, color in zip(ranked, colors, strict=False):
        label = f"{point.rank}. {words(point.values)}"
        axes.plot(steps, _iqm_of_finite(curves[:, point.point]), color=color, linewidth=1.8, label=label)
    _fill_interval(axes, steps, curves[:, ranked[0].point], colors[0])
    if summary.eval_optimum is not None:
        label = f"optimum, {summary.eval_optimum:.1f}"
        axes.axhline(summary.eval_optimum, color=ORANGE, linestyle="--", linewidth=1.2, label=label)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path)


def _fill_interval(axes: Any, steps: np.ndarray, returns: np.ndarray, color: Any) -> None:
    """Draws the 95% interval of the interquartile mean of the returns [E, S]."""
    finite = returns[:, np.isfinite(returns).all(axis=0)]
    if finite.shape[1] > 1:
        low, high = np.array([iqm_interval(row) for row in finite]).T
        label = "95% bootstrap interval of the first"
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0, label=label)


def _iqm_of_finite(returns: np.ndarray) -> np.ndarray:
    """The interquartile means [E] of the returns [E, S] of the seeds that did not diverge; NaN if all did."""
    finite = returns[:, np.isfinite(returns).all(axis=0)]
    return iqm(finite, axis=1) if finite.shape[1] else np.full(len(returns), np.nan)


def swept(path: Path, summary: Summary) -> None:
    """Draws the points' final returns: a line over one swept field, a heat map over two, otherwise a ranking.

    Args:
        path: file of the PNG.
        summary: of the sweep.
    """
    ranked = summary.ranked()
    fields = list(ranked[0].values)
    values = [_in_order({_hashable(point.values[field]) for point in ranked}) for field in fields]
    if len(fields) == 1:
        figure = _line(ranked, fields[0], values[0])
    elif len(fields) == 2 and len(ranked) == len(values[0]) * len(values[1]):
        figure = _heat_map(ranked, fields, values)
    else:
        figure = _ranking(ranked)
    figure.savefig(path)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _in_order(values: set[Any]) -> list[Any]:
    """The values of a swept field: None first, then numbers by size, then words by the alphabet."""
    return sorted(values, key=lambda value: (isinstance(value, str), value is None, value if value is not None else 0))


def _line(ranked: Sequence[PointSummary], field: str, values: list[Any]) -> Any:
    """A figure of the points' final returns over the values of one field."""
    figure, axes = new_figure(f"{field}: {len(ranked)} points", field, "final greedy return")
    by_value = {_hashable(point.values[field]): point.final_return for point in ranked}
    found = [by_value[value] for value in values]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    x = np.array(values, float) if numeric else np.arange(len(values))
    if numeric and x.min() > 0 and x.max() >= 8 * x.min():
        axes.set_xscale("log")
    axes.set_xticks(x, [shown(value) for value in values])
    axes.minorticks_off()
    low, high = np.array([_bounds(final) for final in found]).T
    axes.fill_between(x, low, high, color=BLUE, alpha=0.25, linewidth=0, label="95% bootstrap interval")
    axes.plot(x, [final.iqm for final in found], "o-", color=BLUE, label="interquartile mean")
    axes.plot(x, [final.worst for final in found], "v", color=ORANGE, label="worst agent")
    axes.legend(frameon=False)
    return figure


def _heat_map(ranked: Sequence[PointSummary], fields: list[str], values: list[list[Any]]) -> Any:
    """A figure of the points' final returns over the values of two fields."""
    title = "final greedy return: IQM and its 95% bootstrap interval"
    figure, axes = new_figure(title, fields[1], fields[0])
    grid = np.full([len(axis) for axis in values], np.nan)
    texts = {}
    for point in ranked:
        cell = tuple(axis.index(_hashable(point.values[field])) for axis, field in zip(values, fields, strict=True))
        grid[cell] = point.final_return.iqm
        text = f"{decimal(grid[cell])}\n{interval(_bounds(point.final_return))}".replace("-", "\N{MINUS SIGN}")
        texts[cell] = text.strip() or "diverged"
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


def _ranking(ranked: Sequence[PointSummary]) -> Any:
    """A figure of the best points' final returns, a row per point."""
    best = ranked[:MOST_ROWS]
    height = max(3.2, 0.28 * len(best) + 1.2)
    title = f"the best {len(best)} of {len(ranked)} points" if len(best) < len(ranked) else f"{len(ranked)} points"
    figure, axes = new_figure(title, "final greedy return", "", size=(9, height))
    rows = np.arange(len(best))
    centres = np.array([point.final_return.iqm for point in best])
    low, high = np.array([_bounds(point.final_return) for point in best]).T
    axes.hlines(rows, low, high, color=BLUE, linewidth=3, alpha=0.4, label="95% bootstrap interval")
    axes.plot(centres, rows, "o", color=BLUE, label="interquartile mean")
    axes.set_yticks(rows, [f"{point.rank}. {words(point.values)}" for point in best], fontsize="small")
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="lower left")
    return figure


def _bounds(final: Returns) -> tuple[float, float]:
    """The 95% interval of a point's interquartile mean; from the mean to the mean where one seed gives no interval."""
    return final.iqm_ci95 if np.isfinite(final.iqm_ci95).all() else (final.iqm, final.iqm)
