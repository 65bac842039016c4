"""A clip of one agent as its environment draws itself: an episode at each snapshot, from the same start state."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.pictures import trajectories
from ddpg_jax.pictures.drawing import Scene
from ddpg_jax.pictures.snapshots import Snapshot

MAX_FRAMES = 100
"""Frames of a clip: of longer episodes every n-th step is drawn."""

FRAMES_PER_SECOND = 20

WITHOUT_SCREEN = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
"""Variables by which MuJoCo and pygame learn that there is no screen."""

MAX_WIDTH = 256
"""Pixels of an image; larger ones are reduced."""

_HEADER = 22  # pixels

Drawing = Callable[[], Sequence[np.ndarray]]
"""Draws the images of an episode."""


def choose_renderer() -> None:
    """Lets MuJoCo and pygame draw without a screen where there is none, unless the user says how they draw."""
    if not os.environ.get("DISPLAY"):
        for name, value in WITHOUT_SCREEN.items():
            os.environ.setdefault(name, value)


def draw_film(scene: Scene, drawn: Callable[[], None] = lambda: None) -> bytes:
    """Returns the bytes of a GIF: the first agent at each snapshot, side by side.

    Args:
        scene: whose environment can be drawn.
        drawn: called after each snapshot's episode.

    Raises:
        ValueError: if the library cannot draw here; it says what is missing.
    """
    clips = []
    for drawing in _inside(scene) if scene.environment.outside is None else _outside(scene):
        clips.append(_images(scene.environment.env_id, drawing))
        drawn()
    steps = [snapshot.env_steps for snapshot in scene.snapshots]
    return _gif([_joined([clip[min(i, len(clip) - 1)] for clip in clips], steps) for i in range(max(map(len, clips)))])


def _images(env_id: str, drawing: Drawing) -> Sequence[np.ndarray]:
    """Returns the images of an episode.

    Raises:
        ValueError: if the library cannot draw here.
    """
    try:
        return drawing()
    except Exception as error:  # of whatever library draws
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"only has film, but {env_id} cannot be drawn here: {reason}. MuJoCo draws with "
            f"MUJOCO_GL=egl or MUJOCO_GL=osmesa, and the library of that name (on Debian libegl1 or libosmesa6)"
        ) from error


def _every(environment: Environment) -> int:
    """Returns how many steps of an episode there are to an image."""
    return -(-environment.max_steps // MAX_FRAMES)


def _inside(scene: Scene) -> Iterator[Drawing]:
    """Plays an episode of the first agent at each snapshot; yields what draws every n-th state of it."""
    environment = scene.environment
    starts = _first_agent(scene.starts(np.full((len(scene.agents), 1), scene.start or 0)))
    assert environment.draw is not None
    for snapshot in scene.snapshots:
        played = trajectories.play(
            Snapshot(snapshot.env_steps, *_first_agent((snapshot.actors, snapshot.critics))),
            starts,
            environment=environment,
            algorithm=scene.trained.algorithm,
            num_steps=environment.max_steps,
        )
        length = int(trajectories.lengths(played, environment.max_steps)[0, 0])
        # On a device each of thousands of slices would be a computation of its own.
        states = jax.device_get(played.state)
        every_nth = range(0, length, _every(environment))
        yield partial(environment.draw, [jax.tree.map(lambda leaf, t=t: leaf[t, 0, 0], states) for t in every_nth])


def _outside(scene: Scene) -> Iterator[Drawing]:
    """Yields, for each snapshot, what plays an episode of the first agent on the host and draws every n-th step."""
    apply = jax.jit(scene.trained.algorithm.actor.apply)
    states, _ = scene.environment.evaluation_starts((scene.start or 0) + 1)
    start = jax.tree.map(lambda leaf: leaf[-1:], states)
    assert scene.environment.outside is not None
    film = scene.environment.outside.film
    for snapshot in scene.snapshots:
        actor = jax.tree.map(lambda leaf: leaf[0], snapshot.actors)
        yield partial(film, partial(_act, apply, actor), start, _every(scene.environment))


def _act(apply: Callable[..., jax.Array], actor: Any, observations: np.ndarray) -> np.ndarray:
    return np.asarray(apply(actor, observations))


def _first_agent(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:1], tree)


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
    indexed = [frame.quantize(32, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    indexed[0].save(file, "GIF", save_all=True, append_images=indexed[1:], duration=1000 // FRAMES_PER_SECOND, loop=0)
    return file.getvalue()
