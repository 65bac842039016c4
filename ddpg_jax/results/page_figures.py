"""The figures of `report.html`: SVG in the page's own colours and font, so that it suits dark mode and a phone."""

import io
from typing import Any

import numpy as np

from ddpg_jax.results.history import History
from ddpg_jax.results.plots import BLACK, COLORS, Curve, curves_of, draw_curves, new_figure, own_style
from ddpg_jax.results.summary import Summary

SIZE = (4.6, 3.0)
"""Inches of a figure, of which two stand next to each other, or one fills a phone."""


@own_style()
def svg(figure: Any) -> str:
    """Returns a figure as an element of a page, whose CSS variables `--color-0` to `--color-6` are `COLORS`."""
    import matplotlib

    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "ddpg_jax"}  # text as text; the same each time
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    for number, color in enumerate(COLORS):
        text = text.replace(color.lower(), f"var(--color-{number})")
    return text[text.index("<svg") :]


@own_style()
def panels(history: History, summary: Summary) -> dict[str, str]:
    """Returns figures against environment steps by their captions: returns, the shortfall, losses and Q."""
    steps, returns = history.greedy_returns()
    metrics, curves, optimum = history.metrics, curves_of(history, summary), summary.eval_optimum
    plain = [curve._replace(has_interval=False) for curve in curves]  # intervals of many agents take seconds

    def panel(values: np.ndarray, curves: list[Curve] = plain, line: float | None = None, *, log: bool = False) -> str:
        figure, axes = new_figure(size=SIZE)
        draw_curves(axes, steps, values, curves)
        if line is not None:
            axes.axhline(line, color=BLACK, linestyle=":" if log else "--", linewidth=1.2)
        if log and np.any(values > 0):
            axes.set_yscale("log", nonpositive="clip")
        return svg(figure)

    found = {f"Greedy return, mean of {summary.eval_episodes} episodes": panel(returns, curves, optimum)}
    if optimum is not None:
        solved = "" if summary.solved_shortfall is None else "; solved below the dotted line"
        shortfall = panel(optimum - returns, curves, summary.solved_shortfall, log=True)
        found[f"Shortfall to the optimum{solved}"] = shortfall
    found["Return of training episodes, with exploration noise"] = panel(metrics.train_return)
    found["Critic loss"] = panel(metrics.critic_loss, log=True)
    found["Actor loss, mean of −Q(s, μ(s))"] = panel(metrics.actor_loss)
    found["Mean of Q(s, a) over the stored actions"] = panel(metrics.q_mean)
    return found
