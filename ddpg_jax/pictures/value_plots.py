"""Figures of what agents have learned: policy and value over Pendulum's states, and Q against observed returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpg_jax.results.plots import ORANGE, own_style, png


@dataclass(frozen=True)
class Plane:
    """A policy over angle and velocity: angles from -pi to pi rad, velocities from -8 to 8 rad/s."""

    title: str
    torque: np.ndarray  # [angles, velocities] in N·m
    value: np.ndarray  # [angles, velocities] the discounted return that is expected
    angle: np.ndarray  # [T] angles of an episode, in rad, not wrapped
    velocity: np.ndarray  # [T] its velocities, in rad/s


@own_style()
def state_plane(title: str, value_label: str, planes: Sequence[Plane], max_torque: float) -> bytes:
    """Draws torques above and values below, in one column per policy; returns the bytes of a PNG."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    # From orange to purple, which the colour-blind can tell apart, without the darkest.
    torque_colors = ListedColormap(colormaps["PuOr"](np.linspace(0.18, 0.82, 256)))
    figure = Figure(figsize=(max(7.0, 4.2 * len(planes) + 1.2), 7.4), dpi=150, layout="constrained")
    grid = figure.subplots(2, len(planes), sharex=True, sharey=True, squeeze=False)
    values = [plane.value for plane in planes]
    show = {"origin": "lower", "extent": (-np.pi, np.pi, -8, 8), "aspect": "auto"}
    for (top, bottom), plane in zip(grid.T, planes, strict=True):
        torques = top.imshow(plane.torque.T, cmap=torque_colors, vmin=-max_torque, vmax=max_torque, **show)
        returns = bottom.imshow(plane.value.T, cmap="viridis", vmin=np.min(values), vmax=np.max(values), **show)
        _draw_path(top, plane)
        _draw_path(bottom, plane)
        top.set_title(plane.title, fontsize=11)
        bottom.set_xlabel("angle (rad), 0 is upright")
    for axes in grid[:, 0]:
        axes.set_ylabel("velocity (rad/s)")
    grid[0, 0].set_xticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0", "π/2", "π"])
    figure.colorbar(torques, ax=grid[0], label="torque (N·m)", pad=0.02)
    figure.colorbar(returns, ax=grid[1], label=value_label, pad=0.02)
    figure.suptitle(title, fontsize=12)
    return png(figure)


def _draw_path(axes: Any, plane: Plane) -> None:
    """Draws an episode as a line, once for each turn that it makes: it leaves at one side and enters at the other."""
    from matplotlib.patheffects import Normal, Stroke

    halo = [Stroke(linewidth=2.6, foreground="white"), Normal()]
    first, last = (int(np.floor((angle + np.pi) / (2 * np.pi))) for angle in (plane.angle.min(), plane.angle.max()))
    for turn in range(first, last + 1):
        axes.plot(plane.angle - 2 * np.pi * turn, plane.velocity, color="black", lw=1.2, path_effects=halo)
    start = (plane.angle[0] + np.pi) % (2 * np.pi) - np.pi
    axes.plot(start, plane.velocity[0], "o", color="black", mec="white", ms=7, clip_on=False, zorder=3)
    axes.set(xlim=(-np.pi, np.pi), ylim=(-8, 8))


@dataclass(frozen=True)
class Estimates:
    """The values that critics expected at one snapshot of training, and the returns that followed."""

    title: str
    estimate: np.ndarray  # [P] Q(s, a)
    observed: np.ndarray  # [P] discounted returns


@own_style()
def q_estimates(title: str, observed_label: str, panels: Sequence[Estimates]) -> bytes:
    """Draws estimated values against observed returns, as figure 3 of Lillicrap et al. 2015, as a PNG."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.7 * len(panels) + 1.4, 4.5), dpi=150, layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    most = max(len(panel.estimate) for panel in panels)
    for axes, panel in zip(row, panels, strict=True):
        low, high = (float(bound([panel.estimate, panel.observed])) for bound in (np.min, np.max))
        margin = 0.05 * (high - low) or 1.0
        low, high = low - margin, high + margin
        look = {"cmap": "viridis", "norm": LogNorm(1, max(2, most / 10)), "linewidths": 0.1}
        cells = {"gridsize": 45, "extent": (low, high, low, high), "mincnt": 1}
        density = axes.hexbin(panel.observed, panel.estimate, **cells, **look)
        axes.plot([low, high], [low, high], color=ORANGE, ls="--", lw=1.5)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_title(f"{panel.title}\n{_accuracy(panel)}", fontsize=10)
        axes.grid(alpha=0.25)
    row[0].set_ylabel("estimated Q(s, a)")
    figure.supxlabel(f"{observed_label}; on the dashed line, estimate and return are equal", fontsize=10)
    figure.colorbar(density, ax=row, label="pairs in a hexagon", pad=0.02)
    figure.suptitle(title, fontsize=12)
    return png(figure)


def _accuracy(panel: Estimates) -> str:
    """Returns the mean and the root mean square of the estimates' errors, in words."""
    error = panel.estimate.astype(np.float64) - panel.observed
    mean, spread = error.mean(), np.sqrt(np.mean(error**2))
    digits = 1 if spread >= 10 else 2 if spread >= 0.1 else 4
    return f"error: mean {mean:+,.{digits}f}, rms {spread:,.{digits}f}".replace("-", "−")
