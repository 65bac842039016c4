"""A film of one agent as its environment draws itself: an episode at each snapshot, from the same start state."""

import os
import re
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpg_jax.environments.arguments import one_line
from ddpg_jax.environments.host import film
from ddpg_jax.pictures import animation, trajectories
from ddpg_jax.pictures.drawing import Scene

MAX_FRAMES, FRAMES_PER_SECOND = 100, 20
"""Of longer episodes every n-th step is drawn."""

MUJOCO_HINT = "MuJoCo draws with MUJOCO_GL=egl or osmesa, and the library of that name (on Debian libegl1, libosmesa6)"

MIN_WIDTH, MAX_WIDTH = 160, 256
"""Pixels of an image: larger ones are reduced, smaller ones are surrounded by white."""

_HEADER = 22  # pixels


def choose_renderer() -> None:
    """Lets MuJoCo and pygame draw without a screen where there is none, unless the user says how they draw."""
    if not os.environ.get("DISPLAY"):
        for name, value in ("MUJOCO_GL", "egl"), ("SDL_VIDEODRIVER", "dummy"), ("SDL_AUDIODRIVER", "dummy"):
            os.environ.setdefault(name, value)


def draw_film(scene: Scene) -> bytes:
    """Returns the bytes of a GIF: the first agent at each snapshot, side by side.

    Raises:
        ValueError: if the library cannot draw here; it says what is missing.
    """
    steps, episodes = [snapshot.env_steps for snapshot in scene.snapshots], []
    for index in range(len(steps)):
        try:
            episodes.append(_frames(scene, index))
        except Exception as error:  # of whatever library draws
            hint = f". {MUJOCO_HINT}" if re.search("mujoco|gl|mesa", str(error), re.IGNORECASE) else ""
            env_id = scene.task.environment.env_id
            raise ValueError(f"{env_id} cannot be drawn here: {one_line(error)}{hint}") from error
    together = ([frames[min(i, len(frames) - 1)] for frames in episodes] for i in range(max(map(len, episodes))))
    return animation.gif([_joined(images, steps) for images in together], 1 / FRAMES_PER_SECOND)


def _frames(scene: Scene, index: int) -> Sequence[np.ndarray]:
    """Returns frames [H, W, 3] of the first agent's episode at a snapshot: every n-th step of it."""
    task, algorithm = scene.task, scene.trained.algorithm
    every = -(-task.environment.max_steps // MAX_FRAMES)
    if task.film_env is not None:
        actor = jax.tree.map(lambda leaf: leaf[0], scene.snapshots[index].actors)
        act = partial(jax.jit(algorithm.actor.apply), actor)
        number = scene.start or 0
        starts = jax.tree.map(lambda leaf: leaf[number:], task.evaluation_starts(number + 1))
        return film(act, task.film_env, starts, every)
    assert task.draw is not None
    played = scene.played[index]
    length = int(trajectories.lengths(played.steps, task.environment.max_steps)[0, scene.episodes])
    states = jax.device_get(played.state)  # on a device each of thousands of slices would be a computation of its own
    return task.draw([jax.tree.map(lambda leaf, t=t: leaf[t], states) for t in range(0, length, every)])


def _joined(images: Sequence[np.ndarray], env_steps: Sequence[int]) -> Image.Image:
    """Returns images side by side, each below the environment steps after which its agent acts."""
    pictures = [Image.fromarray(np.asarray(image, np.uint8)) for image in images]
    for picture in pictures:
        picture.thumbnail((MAX_WIDTH, MAX_WIDTH))
    width, height = max(pictures[0].width, MIN_WIDTH), pictures[0].height
    frame = Image.new("RGB", (width * len(images), height + _HEADER), "white")
    pen, font = ImageDraw.Draw(frame), ImageFont.load_default(13)
    for i, (picture, steps) in enumerate(zip(pictures, env_steps, strict=True)):
        frame.paste(picture, (i * width + (width - picture.width) // 2, _HEADER))
        text = f"after {steps:,} steps" if steps else "before training"
        pen.text(((i + 0.5) * width, _HEADER / 2), text, "black", font, anchor="mm")
    return frame
