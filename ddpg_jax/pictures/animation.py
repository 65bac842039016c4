"""Animations: pendulums next to one another, in one panel per snapshot of training, and the bytes of a GIF.

Pillow draws the frames: it is three times as fast as Matplotlib's writers, and the files are half as large.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ddpg_jax.results.plots import BLUE, ORANGE, own_style

_SCALE = 3  # frames are drawn three times as large and then reduced, which smooths edges
_PANEL, _GAP, _HEADER, _FOOTER = 300, 16, 58, 30  # pixels of the finished picture
_FOOT = (_HEADER + _PANEL + _FOOTER / 2) * _SCALE  # of the drawn one
_GREY, _BLACK, _WHITE = "#666666", "#222222", "#FFFFFF"
_PAUSE = 1500  # milliseconds for which the last frame is shown


@dataclass(frozen=True)
class Panel:
    """The n pendulums of one snapshot of training."""

    title: str
    subtitle: str
    angle: np.ndarray  # [T, n] in rad; 0 is upright, and positive is counter-clockwise
    torque: np.ndarray  # [T, n] as a fraction of the greatest torque; positive is counter-clockwise


@own_style()
def pendulums(panels: Sequence[Panel], *, step_seconds: float, max_torque: float) -> list[Image.Image]:
    """Returns one frame per step, T in all, with the panels next to one another; `max_torque` is in N·m."""
    background = _background(panels, max_torque)
    return [_frame(background, panels, t, f"time {t * step_seconds:4.1f} s") for t in range(len(panels[0].angle))]


def gif(frames: Sequence[Image.Image], frame_seconds: float, palette: Image.Image | None = None) -> bytes:
    """Returns the bytes of a GIF whose last frame is shown for longer.

    Frames that share a palette store only the pixels that change; without one, each has 32 colours of its own.
    """
    first, *others = (frame.quantize(32, palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [*[round(1000 * frame_seconds)] * len(others), _PAUSE]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    return file.getvalue()


def palette() -> Image.Image:
    """Returns a palette with white, the colours in which pendulums are drawn, and their blends at smooth edges."""
    mixed = [(color, _WHITE) for color in (BLUE, ORANGE, _GREY, _BLACK)] + [(BLUE, ORANGE)]
    rgb = ImageColor.getrgb
    shades = [np.round(np.linspace(rgb(ground), rgb(color), 10)) for color, ground in mixed]
    image = Image.new("P", (1, 1))
    image.putpalette(np.ravel(shades).astype(int).tolist())
    return image


def _background(panels: Sequence[Panel], max_torque: float) -> Image.Image:
    """Returns the titles and the legend, which are the same in all frames."""
    width = len(panels) * (_PANEL + _GAP) + _GAP
    image = Image.new("RGB", (width * _SCALE, (_HEADER + _PANEL + _FOOTER) * _SCALE), _WHITE)
    pen = ImageDraw.Draw(image)
    for i, panel in enumerate(panels):
        middle = (_GAP + i * (_PANEL + _GAP) + _PANEL / 2) * _SCALE
        pen.text((middle, 20 * _SCALE), panel.title, _BLACK, _font(15, bold=True), anchor="mm")
        pen.text((middle, 42 * _SCALE), panel.subtitle, _BLACK, _font(14), anchor="mm")
    right, text = (width - _GAP) * _SCALE, f"torque (longest arc: {max_torque:g} N·m)"
    pen.text((right, _FOOT), text, _GREY, _font(13), anchor="rm")
    end = right - pen.textlength(text, _font(13)) - 8 * _SCALE
    pen.line([(end - 18 * _SCALE, _FOOT), (end, _FOOT)], fill=ORANGE, width=3 * _SCALE)
    return image


def _frame(background: Image.Image, panels: Sequence[Panel], t: int, time: str) -> Image.Image:
    image = background.copy()
    pen = ImageDraw.Draw(image)
    num = panels[0].angle.shape[1]
    columns = int(np.ceil(np.sqrt(num)))
    cell, rows = _PANEL / columns, -(-num // columns)
    for i, panel in enumerate(panels):
        for agent in range(num):
            row, column = divmod(agent, columns)
            x = _GAP + i * (_PANEL + _GAP) + (column + 0.5) * cell
            y = _HEADER + (_PANEL - rows * cell) / 2 + (row + 0.5) * cell
            _pendulum(pen, x, y, cell, float(panel.angle[t, agent]), float(panel.torque[t, agent]))
    pen.text((_GAP * _SCALE, _FOOT), time, _GREY, _font(13), anchor="lm")
    return image.resize((image.width // _SCALE, image.height // _SCALE), Image.Resampling.BOX)


def _pendulum(pen: ImageDraw.ImageDraw, x: float, y: float, cell: float, angle: float, torque: float) -> None:
    """Draws a rod on its pivot, and an arc around the pivot whose length is proportional to the torque."""
    x, y, length = x * _SCALE, y * _SCALE, 0.44 * cell * _SCALE
    width = max(2, round(0.18 * length))
    tip = (x - length * np.sin(angle), y - length * np.cos(angle))
    aside = width / 2 * np.array([np.cos(angle), -np.sin(angle)])
    corners = [np.add(end, side) for end, side in ((tip, aside), (tip, -aside), ((x, y), -aside), ((x, y), aside))]
    pen.polygon([tuple(corner) for corner in corners], fill=BLUE)
    for end in ((x, y), tip):
        pen.circle(end, width / 2, fill=BLUE)
    radius = 0.45 * length
    sweep = 150 * torque  # degrees from the top; Pillow counts them clockwise from the right
    if abs(sweep) >= 3:
        box, (first, last) = (x - radius, y - radius, x + radius, y + radius), sorted((-90.0, -90.0 - sweep))
        pen.arc(box, first, last, fill=ORANGE, width=max(2, round(0.4 * width)))
    pen.circle((x, y), 0.25 * width, fill=_WHITE)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns the font that comes with Matplotlib."""
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal"))
    return ImageFont.truetype(path, size * _SCALE)
