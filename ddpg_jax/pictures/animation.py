"""Animations of pendulums: agents next to one another, in one panel per snapshot of their training.

Pillow draws the frames. Matplotlib's writers for GIF and MP4 were tried: with 3 panels of 16 pendulums and 200 frames
they took 11.7 s of one core instead of 3.8 s and made a GIF of 3.2 MB instead of 1.8 MB, and they cannot show the last
frame for longer.
"""

import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpg_jax.results.plots import BLUE, ORANGE

FRAMES_PER_SECOND = 20
"""A step of Pendulum takes 0.05 s, so the pendulums move at their real speed."""

_SCALE = 3  # frames are drawn three times as large and then reduced, which smooths edges
_PANEL, _GAP, _HEADER, _FOOTER = 300, 16, 58, 30  # pixels of the finished picture
_GREY, _BLACK, _WHITE = "#666666", "#222222", "#FFFFFF"
_PAUSE = 1.5  # seconds for which the last frame is shown
_BLENDS = 10  # shades between two colours of the palette


@dataclass(frozen=True)
class Panel:
    """The n pendulums of one snapshot of training."""

    title: str
    subtitle: str
    angle: np.ndarray
    """[T, n] in rad; 0 is upright, and positive is counter-clockwise."""
    torque: np.ndarray
    """[T, n] as a fraction of the greatest torque; positive is counter-clockwise."""


def draw(panels: list[Panel]) -> list[Image.Image]:
    """Returns one frame per step, T in all, with the panels next to one another."""
    background = _background(panels)
    columns = int(np.ceil(np.sqrt(panels[0].angle.shape[1])))
    return [_frame(background, panels, t, columns) for t in range(len(panels[0].angle))]


def encode(frames: list[Image.Image], suffix: str) -> bytes:
    """Returns the bytes of an animation.

    Args:
        frames: all of one size.
        suffix: ".gif" or ".mp4".

    Raises:
        ValueError: if ffmpeg, which makes an .mp4, fails.
    """
    return _gif(frames) if suffix == ".gif" else _mp4(frames)


def require_encoder(name: str) -> None:
    """Refuses the name of a file that cannot be written here.

    Raises:
        ValueError: names the rule.
    """
    suffix = Path(name).suffix
    if suffix not in (".gif", ".mp4"):
        raise ValueError(f"animation is {name}, but must end in .gif or .mp4")
    if suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError(f"animation is {name}, but must end in .gif: an .mp4 needs ffmpeg, which is not installed")


def _background(panels: list[Panel]) -> Image.Image:
    """Returns what stays the same in all frames."""
    width = len(panels) * (_PANEL + _GAP) + _GAP
    image = Image.new("RGB", (width * _SCALE, (_HEADER + _PANEL + _FOOTER) * _SCALE), _WHITE)
    pen = ImageDraw.Draw(image)
    for i, panel in enumerate(panels):
        middle = (_GAP + i * (_PANEL + _GAP) + _PANEL / 2) * _SCALE
        pen.text((middle, 20 * _SCALE), panel.title, _BLACK, _font(15, bold=True), anchor="mm")
        pen.text((middle, 42 * _SCALE), panel.subtitle, _BLACK, _font(14), anchor="mm")
    return image


def _frame(background: Image.Image, panels: list[Panel], t: int, columns: int) -> Image.Image:
    image = background.copy()
    pen = ImageDraw.Draw(image)
    cell = _PANEL / columns
    for i, panel in enumerate(panels):
        rows = -(-panel.angle.shape[1] // columns)
        for agent in range(panel.angle.shape[1]):
            row, column = divmod(agent, columns)
            x = _GAP + i * (_PANEL + _GAP) + (column + 0.5) * cell
            y = _HEADER + (_PANEL - rows * cell) / 2 + (row + 0.5) * cell
            _pendulum(pen, x, y, cell, float(panel.angle[t, agent]), float(panel.torque[t, agent]))
    foot = (_HEADER + _PANEL + _FOOTER / 2) * _SCALE
    pen.text((_GAP * _SCALE, foot), f"time {t / FRAMES_PER_SECOND:4.1f} s", _GREY, _font(13), anchor="lm")
    _legend(pen, image.width - _GAP * _SCALE, foot)
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
    box = (x - radius, y - radius, x + radius, y + radius)
    sweep = 150 * torque  # degrees from the top; Pillow counts them clockwise from the right
    if abs(sweep) >= 3:
        first, last = sorted((-90.0, -90.0 - sweep))
        pen.arc(box, first, last, fill=ORANGE, width=max(2, round(0.4 * width)))
    pen.circle((x, y), 0.25 * width, fill=_WHITE)


def _legend(pen: ImageDraw.ImageDraw, right: float, y: float) -> None:
    text = "torque (longest arc: 2 N·m)"
    pen.text((right, y), text, _GREY, _font(13), anchor="rm")
    end = right - pen.textlength(text, _font(13)) - 8 * _SCALE
    pen.line([(end - 18 * _SCALE, y), (end, y)], fill=ORANGE, width=3 * _SCALE)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns the font that comes with Matplotlib."""
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal"))
    return ImageFont.truetype(path, size * _SCALE)


def _gif(frames: list[Image.Image]) -> bytes:
    """Returns the bytes of a GIF whose frames share one palette, so that pixels that do not change are stored once."""
    palette = _palette()
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [1000 // FRAMES_PER_SECOND] * (len(frames) - 1) + [round(1000 * _PAUSE)]
    file = io.BytesIO()
    indexed[0].save(file, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()


def _palette() -> Image.Image:
    """Returns a palette with white, the colours that are drawn, and their blends at smooth edges."""
    mixed = [(color, _WHITE) for color in (BLUE, ORANGE, _GREY, _BLACK)] + [(BLUE, ORANGE)]
    colors = [
        [round(share * a + (1 - share) * b) for a, b in zip(_rgb(color), _rgb(ground), strict=True)]
        for color, ground in mixed
        for share in np.linspace(0, 1, _BLENDS)
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.ravel(colors).tolist())
    return palette


def _rgb(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _mp4(frames: list[Image.Image]) -> bytes:
    """Returns the bytes of an MP4: H.264 in the pixel format that browsers show, which needs even sizes."""
    width, height = (size - size % 2 for size in frames[0].size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pendulums.mp4"
        command = [
            "ffmpeg", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
            "-r", str(FRAMES_PER_SECOND), "-i", "-", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path),
        ]  # fmt: skip
        pixels = b"".join(frame.crop((0, 0, width, height)).tobytes() for frame in frames)
        process = subprocess.run(command, input=pixels, capture_output=True, check=False)
        if process.returncode != 0 or not path.exists():
            reason = (process.stderr.decode(errors="replace").strip().splitlines() or ["it wrote nothing"])[-1]
            raise ValueError(f"animation could not be written by ffmpeg: {reason}")
        return path.read_bytes()
