"""Figures of the returns of many agents. They are returned, for a notebook to show; `png` gives them as a file."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.results.history import History
from ddpg_jax.results.statistics import FEWEST, NO_INTERVAL, iqm, iqm_interval
from ddpg_jax.results.summary import LAST_EPISODES, Summary
from ddpg_jax.sweep import label

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito (2008), which colour-blind readers can tell apart."""

BLUE, ORANGE, *_, BLACK = COLORS
GREY = "#AAAAAA"

MOST_AGENTS = 100
"""Agents that are drawn one by one, at most: more lines hide each other, and take seconds."""

INTERVAL = "95% bootstrap interval of the IQM"
"""How figures name the result of `iqm_interval`."""


@contextmanager
def own_style() -> Iterator[None]:
    """Makes figures drawn inside independent of the user's rc file, style and MPLBACKEND, which are restored.

    Matplotlib reads MPLBACKEND when it is imported, and refuses a name that it does not know, such as that of a
    notebook of another environment.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@own_style()
def png(figure: Any) -> bytes:
    """Returns a figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def new_figure(
    title: str = "", x_label: str = "", y_label: str = "", *, size: tuple[float, float] = (8, 4.8), columns: int = 1
) -> tuple[Any, Any]:
    """Returns a figure of this size in inches, and its axes: an array of them for several columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure._repr_png_ = partial(png, figure)  # type: ignore[attr-defined]  # by which IPython shows it without pyplot
    axes = figure.subplots(1, columns)
    for each in np.ravel(axes):
        each.set(xlabel=x_label, ylabel=y_label, title=title)
        each.grid(alpha=0.25)
    return figure, axes


class Curve(NamedTuple):
    """The agents whose interquartile mean is one curve: all of a run, or those of one configuration of a sweep."""

    agents: np.ndarray  # [N] bool, without those that diverged
    name: str | None  # None: not in the legend
    color: str
    has_interval: bool


def curves_of(history: History, summary: Summary) -> list[Curve]:
    """Returns the curves of a run; of a sweep the best first, of which six are named.

    The best configuration has its interval; of up to three, each has it.
    """
    finite, ranked = history.is_finite(), summary.ranked()
    if not ranked:
        few = f"\n({NO_INTERVAL})" if 1 < finite.sum() < FEWEST else ""
        return [Curve(finite, f"interquartile mean (IQM) of {finite.sum()} agents{few}", BLUE, has_interval=True)]
    curves, config = [], np.arange(len(finite)) // summary.num_seeds
    for each, color in zip(ranked, [*COLORS[:-1], *[GREY] * len(ranked)], strict=False):
        name = None if color == GREY else f"{each.rank}. {label(each.values)}"
        curves.append(Curve(finite & (config == each.config), name, color, len(ranked) <= 3 or each.rank == 1))
    return curves


def draw_curves(axes: Any, x: np.ndarray, values: np.ndarray, curves: Sequence[Curve]) -> None:
    """Draws the interquartile means of values [X, N] of N agents; of a single curve also agents as faint lines.

    NaN is left out. Very many points are stored as pixels, also in SVG.
    """
    marker = "o" if np.isfinite(values).any(axis=1).sum() == 1 else None
    text = INTERVAL if len(curves) <= 3 else f"{INTERVAL} of the first"
    for curve in curves:
        kept = values[:, curve.agents]
        if not kept.size:
            continue
        if len(curves) == 1:
            some = kept[:, :: -(-kept.shape[1] // MOST_AGENTS)]
            faint = {"alpha": 0.15, "linewidth": 0.8, "rasterized": some.size > 20_000}
            name = "each agent" if some.shape == kept.shape else f"{some.shape[1]} of the agents"
            axes.plot(x, some, color=BLUE, marker=marker, **faint)[0].set_label(name)
        look = {"linewidth": 2} if curve.name else {"linewidth": 0.8, "zorder": 1}
        finite = [row[np.isfinite(row)] for row in kept]
        means = [iqm(row) if len(row) else np.nan for row in finite]
        axes.plot(x, means, color=curve.color, label=curve.name, marker=marker, **look)
        if curve.has_interval:
            draw_interval(axes, x, kept, curve.color, text if curve is curves[0] else None)


def draw_interval(axes: Any, x: np.ndarray, values: np.ndarray, color: Any, name: str | None = None) -> None:
    """Draws the intervals of the interquartile means of values [X, N] at 50 of the x [X]; none for too few agents."""
    if values.shape[1] >= FEWEST:
        thinned = np.unique(np.linspace(0, len(x) - 1, 50).astype(int))
        low, high = np.array([iqm_interval(values[i]) for i in thinned]).T
        axes.fill_between(x[thinned], low, high, color=color, alpha=0.25, linewidth=0, label=name)


@own_style()
def learning_curve(history: History, summary: Summary) -> Any:
    """Returns a figure of greedy returns against environment steps. Agents that diverged are left out."""
    title, num_configs = summary.subject, len(summary.configs or ())
    title += f": {num_configs} configurations x {summary.num_seeds} seeds" if num_configs else ""
    y_label = f"greedy return, mean of {summary.eval_episodes} episodes"
    size = (10, 4.8) if num_configs else (8, 4.8)
    figure, axes = new_figure(title, "environment steps per agent", y_label, size=size)
    draw_curves(axes, *history.greedy_returns(), curves_of(history, summary))
    if summary.eval_optimum is not None:
        name = f"optimum, {summary.eval_optimum:.1f}"
        axes.axhline(summary.eval_optimum, color=BLACK, linestyle="--", linewidth=1.2, label=name)
    if num_configs:
        figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    elif axes.lines:
        axes.legend(loc="lower right", frameon=False)
    return figure


@own_style()
def training_returns(history: History, summary: Summary, window: int = LAST_EPISODES) -> Any:
    """Returns the Keras tutorial's figure: the mean of the last `window` training returns against episodes.

    Training returns include exploration noise. Raises ValueError if an agent has not completed an episode.
    """
    returns = history.training_returns()
    episodes = np.arange(1, min(map(len, returns), default=0) + 1)
    if len(episodes) == 0:
        raise ValueError("an agent has not completed an episode")
    totals = np.cumsum([agent_returns[: len(episodes)] for agent_returns in returns], axis=1, dtype=np.float64).T
    means = totals.copy()
    means[window:] -= totals[:-window]
    means /= np.minimum(episodes, window)[:, None]
    y_label = f"training return, mean of the last {window} episodes"
    figure, axes = new_figure(summary.subject, "episodes per agent", y_label)
    (curve,) = curves_of(history, summary)
    draw_curves(axes, episodes, means, [curve._replace(agents=np.full(len(returns), True))])
    axes.legend(loc="lower right", frameon=False)
    return figure
