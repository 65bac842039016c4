"""Draws `images/data_flow.png`: the path of the data through a run, and through one step of an agent."""

from pathlib import Path
from typing import Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HOST, CORE, FRAME, INK = "#e9eef6", "#fdf0dc", "#9aa5b1", "#1f2933"
WIDTH, HEIGHT, GAP, LEFT = 2.3, 1.0, 3.2, 1.4


def box(axes: Axes, x: float, y: float, title: str, text: str, color: str) -> None:
    """Draws a part with its centre at (x, y), and its file below its name."""
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    axes.add_patch(
        FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.1", fc=color, ec=FRAME)
    )
    axes.text(x, y + 0.24, title, ha="center", va="center", fontsize=10.5, weight="bold", color=INK)
    axes.text(x, y - 0.16, text, ha="center", va="center", fontsize=8.5, color=INK, linespacing=1.35)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", bend: float = 0.0) -> None:
    """Draws an arrow between two points, with the name of what flows along it."""
    style = {"arrowstyle": "-|>", "mutation_scale": 13, "color": INK, "lw": 1.1}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **style))
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x, y + 0.13, text, ha="center", va="bottom", fontsize=8.5, style="italic", color=INK)


def row(axes: Axes, y: float, parts: list[tuple[str, str]], flows: list[str], color: str) -> None:
    """Draws parts from left to right, with the names of what flows between them."""
    for i, part in enumerate(parts):
        box(axes, LEFT + GAP * i, y, *part, color)
        if i:
            arrow(axes, (LEFT + GAP * (i - 1) + WIDTH / 2, y), (LEFT + GAP * i - WIDTH / 2, y), flows[i - 1])


def note(axes: Axes, x: float, y: float, text: str, align: Literal["left", "center", "right"] = "left") -> None:
    """Draws a line of small text, aligned at x."""
    axes.text(x, y, text, ha=align, va="center", fontsize=8.5, style="italic", color=INK)


def draw_run(axes: Axes) -> None:
    """Draws the path from the command line to the run folder."""
    axes.text(0, 8.25, "A run, on the host", fontsize=12, weight="bold", color=INK)
    parts = [
        ("Command line", "run.py, runs/options.py\npreset, flags"),
        ("Config", "config.py, presets.py\nchecked values, no JAX"),
        ("Plan", "runs/plan.py\nparts, memory, waves"),
        ("Programs", "population/\nfor a block of agents"),
        ("Run folder", "runs/, results/\ntables, policies, figures"),
    ]
    row(axes, 7.3, parts, ["words", "values", "Setup", "results"], HOST)
    arrow(axes, (10.6, 6.78), (10.6, 5.9))
    note(axes, 10.45, 6.3, "chunk of steps", "right")
    arrow(axes, (11.4, 5.9), (11.4, 6.78))
    note(axes, 11.55, 6.3, "log [N, steps], states")


def draw_acting(axes: Axes) -> None:
    """Draws the frame of a compiled step, and its first row: from the state to a minibatch."""
    axes.add_patch(FancyBboxPatch((0, 0.85), 15.6, 5.0, boxstyle="round,pad=0.02", fc="#fffaf2", ec=FRAME, ls="--"))
    title = "One step of every agent in a block, compiled: algorithm/loop.py"
    axes.text(0.2, 5.5, title, fontsize=12, weight="bold", color=INK)
    parts = [
        ("TrainState", "types.py\nall that is carried"),
        ("Act", "agent.py, noise.py\nline 8: a = μ(s) + noise"),
        ("Execute", "environment.py\nline 9: r, s'"),
        ("Store", "replay.py\nline 10: (s, a, r, d, s')"),
        ("Sample", "replay.py\nline 11: minibatch [B]"),
    ]
    row(axes, 4.3, parts, ["s", "a", "r, d, s'", "rows"], CORE)


def draw_learning(axes: Axes) -> None:
    """Draws the second row, from right to left: from a minibatch to the next state."""
    parts = [
        ("Targets", "agent.py\nline 15: θ' moves by τ"),
        ("Actor", "losses.py, agent.py\nline 14: policy gradient"),
        ("Critic", "losses.py, agent.py\nline 13: (y − Q(s, a))²"),
        ("TD target", "losses.py\nline 12: y = r + γ d Q'"),
    ]
    for i, part in enumerate(parts):
        x = LEFT + GAP * i
        box(axes, x, 1.75, *part, CORE)
        if i:
            arrow(axes, (x - WIDTH / 2, 1.75), (x - GAP + WIDTH / 2, 1.75), ("μ", "Q", "y")[i - 1])
    arrow(axes, (LEFT + 4 * GAP, 3.78), (LEFT + 3 * GAP + WIDTH / 2, 1.75), bend=-0.25)
    arrow(axes, (LEFT, 2.27), (LEFT, 3.78))
    note(axes, LEFT + 0.15, 3.0, "the next step")
    note(axes, 7.8, 3.0, "lines 4–6: a new episode begins where one ended (loop.py)", "center")


def main() -> None:
    """Draws the picture and writes it."""
    figure, axes = plt.subplots(figsize=(13.6, 6.9))
    axes.set_xlim(-0.2, 15.8)
    axes.set_ylim(0.6, 8.6)
    axes.axis("off")
    draw_run(axes)
    draw_acting(axes)
    draw_learning(axes)
    figure.savefig(Path(__file__).parent / "images" / "data_flow.png", dpi=110, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
