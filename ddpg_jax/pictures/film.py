"""A clip of one agent as its environment draws itself: an episode at each snapshot, from the same start state."""

import io
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpg_jax.pictures import trajectories
from ddpg_jax.pictures.drawing import Scene
from ddpg_jax.pictures.snapshots import Snapshot

MAX_FRAMES = 200
"""Frames of a clip: of longer episodes every n-th step is drawn."""

FRAMES_PER_SECOND = 20

WITHOUT_SCREEN = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
"""Variables by which MuJoCo and pygame learn that there is no screen."""

MAX_WIDTH = 320
"""Pixels of an image; larger ones are reduced."""

_HEADER = 22  # pixels


def choose_renderer() -> None:
    """Lets MuJoCo and pygame draw without a screen where there is none, unless the user says how they draw."""
    if not os.environ.get("DISPLAY"):
        for name, value in WITHOUT_SCREEN.items():
            os.environ.setdefault(name, value)


def draw_film(scene: Scene) -> bytes:
    """Returns the bytes of a GIF: the first agent at each snapshot, side by side.

    Raises:
        ValueError: if the library cannot draw here; it says what is missing.
    """
    try:
        clips = [_episode(scene, snapshot) for snapshot in scene.snapshots]
    except Exception as error:  # of whatever library draws
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"only has film, but {scene.environment.env_id} cannot be drawn here: {reason}. MuJoCo draws with "
            f"MUJOCO_GL=egl or MUJOCO_GL=osmesa, and the library of that name (on Debian libegl1 or libosmesa6)"
        ) from error
    num = max(map(len, clips))
    frames = [
        _joined([clip[min(i, len(clip) - 1)] for clip in clips], [snapshot.env_steps for snapshot in scene.snapshots])
        for i in range(num)
    ]
    return _gif(frames)


def _episode(scene: Scene, snapshot: Snapshot) -> list[np.ndarray]:
    """Returns the frames [H, W, 3] of an episode of the first agent."""
    environment = scene.environment
    every = -(-environment.max_steps // MAX_FRAMES)
    if environment.outside is not None:
        actor = jax.jit(lambda observation: scene.trained.algorithm.actor.apply(_first(snapshot.actors), observation))
        states, _ = environment.evaluation_starts((scene.start or 0) + 1)
        start = jax.tree.map(lambda leaf: leaf[-1:], states)
        return list(environment.outside.film(lambda observation: np.asarray(actor(observation)), start, every))
    first = scene.starts(np.full((len(scene.agents), 1), scene.start or 0))
    one = jax.tree.map(lambda leaf: leaf[:1], (snapshot, first))
    played = trajectories.play(
        one[0]._replace(env_steps=snapshot.env_steps),
        one[1],
        environment=environment,
        algorithm=scene.trained.algorithm,
        num_steps=environment.max_steps,
    )
    length = int(trajectories.lengths(played, environment.max_steps)[0, 0])
    states = [jax.tree.map(lambda leaf, t=t: leaf[t, 0, 0], played.state) for t in range(0, length, every)]
    assert environment.draw is not None
    return list(environment.draw(states))


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _joined(images: Sequence[np.ndarray], env_steps: Sequence[int]) -> Image.Image:
    """Returns images side by side, each below the environment steps after which its agent acts."""
    pictures = [Image.fromarray(np.asarray(image, np.uint8)) for image in images]
    for picture in pictures:
        picture.thumbnail((MAX_WIDTH, MAX_WIDTH))
    width, height = pictures[0].size
    frame = Image.new("RGB", (width * len(images), height + _HEADER), "white")
    pen, font = ImageDraw.Draw(frame), ImageFont.load_default(13)
    for i, (picture, steps) in enumerate(zip(pictures, env_steps, strict=True)):
        frame.paste(picture, (i * width, _HEADER))
        text = f"after {steps:,} steps" if steps else "before training"
        pen.text(((i + 0.5) * width, _HEADER / 2), text, "black", font, anchor="mm")
    return frame


def _gif(frames: list[Image.Image]) -> bytes:
    indexed = [frame.quantize(64, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    indexed[0].save(file, "GIF", save_all=True, append_images=indexed[1:], duration=1000 // FRAMES_PER_SECOND, loop=0)
    return file.getvalue()
