"""Figures of the final returns of a sweep's configurations over the swept fields."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddpg_jax.fields import format_value
from ddpg_jax.results.plots import BLUE, INTERVAL, ORANGE, new_figure, own_style
from ddpg_jax.results.summary import ConfigSummary, Summary
from ddpg_jax.results.text import decimal, interval
from ddpg_jax.sweep import label

MOST_ROWS = 40
"""Configurations in a ranking, at most."""
FINAL, MEAN = "final greedy return", "interquartile mean (IQM)"


@own_style()
def final_returns(summary: Summary) -> Any:
    """Returns a figure of final returns: a line over one swept field, a heat map over two, otherwise a ranking."""
    ranked, swept = summary.ranked(), summary.swept_fields
    values = [_in_order({_hashable(each.values.get(name)) for each in ranked}) for name in swept]
    if len(swept) == 1:
        return _line(ranked, swept[0], values[0])
    if len(swept) == 2 and len(ranked) == len(values[0]) * len(values[1]):
        return _heat_map(ranked, swept, values)
    return _ranking(ranked)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _in_order(values: set[Any]) -> list[Any]:
    """Returns the values of a swept field: None first, then numbers by size, then texts by the alphabet."""
    return sorted(values, key=lambda value: (isinstance(value, str), value is not None, 0 if value is None else value))


def _line(ranked: Sequence[ConfigSummary], name: str, values: list[Any]) -> Any:
    figure, axes = new_figure(f"{name}: {len(ranked)} configurations", name, FINAL)
    by_value = {_hashable(each.values[name]): each.final_return for each in ranked}
    found = [by_value[value] for value in values]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    x = np.array(values, float) if numeric else np.arange(len(values))
    if numeric and x.min() > 0 and x.max() >= 8 * x.min():
        axes.set_xscale("log")
    axes.set_xticks(x, [format_value(value) for value in values])
    axes.minorticks_off()
    low, high = np.array([final.iqm_ci95 for final in found]).T
    if np.isfinite(low).any():
        axes.fill_between(x, low, high, color=BLUE, alpha=0.25, linewidth=0, label=INTERVAL)
    axes.plot(x, [final.iqm for final in found], "o-", color=BLUE, label=MEAN)
    axes.plot(x, [final.worst for final in found], "v", color=ORANGE, label="worst agent")
    axes.legend(frameon=False)
    return figure


def _heat_map(ranked: Sequence[ConfigSummary], names: list[str], values: list[list[Any]]) -> Any:
    figure, axes = new_figure(f"{FINAL}: IQM and its 95% bootstrap interval", names[1], names[0])
    grid, texts = np.full([len(axis) for axis in values], np.nan), {}
    for each in ranked:
        cell = tuple(axis.index(_hashable(each.values[name])) for axis, name in zip(values, names, strict=True))
        grid[cell] = each.final_return.iqm
        text = f"{decimal(grid[cell])}\n{interval(each.final_return.iqm_ci95)}".replace("-", "\N{MINUS SIGN}")
        texts[cell] = text.strip() or "diverged"
    axes.grid(visible=False)
    image = axes.imshow(grid, cmap="viridis", aspect="auto", origin="lower")
    finite = grid[np.isfinite(grid)]
    dark = 0.4 * finite.min() + 0.6 * finite.max() if len(finite) else np.nan
    for cell, text in texts.items():
        color = "white" if grid[cell] <= dark else "#111111"  # also in dark mode
        axes.text(*cell[::-1], text, ha="center", va="center", color=color, fontsize="small")
    axes.set_yticks(range(len(values[0])), list(map(format_value, values[0])))
    axes.set_xticks(range(len(values[1])), list(map(format_value, values[1])))
    figure.colorbar(image, label=f"{FINAL}, IQM")
    return figure


def _ranking(ranked: Sequence[ConfigSummary]) -> Any:
    best = ranked[:MOST_ROWS]
    rows, title = np.arange(len(best)), f"the best {len(best)} of " if len(best) < len(ranked) else ""
    size = (9, max(3.2, 0.28 * len(best) + 1.2))
    figure, axes = new_figure(f"{title}{len(ranked)} configurations", FINAL, size=size)
    low, high = np.array([each.final_return.iqm_ci95 for each in best]).T
    if np.isfinite(low).any():
        axes.hlines(rows, low, high, color=BLUE, linewidth=3, alpha=0.4, label=INTERVAL)
    axes.plot([each.final_return.iqm for each in best], rows, "o", color=BLUE, label=MEAN)
    axes.set_yticks(rows, [f"{each.rank}. {label(each.values)}" for each in best], fontsize="small")
    axes.invert_yaxis()
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure
