"""Tests the drawings of pendulums, pixel by pixel."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from ddpg_jax.pictures import animation


def frame_of(angle: float, torque: float = 0.0) -> np.ndarray:
    """Returns the pixels [300, 300, 3] of the only pendulum in the only panel."""
    panel = animation.Panel("", "", np.full((1, 1), angle), np.full((1, 1), torque))
    (frame,) = animation.pendulums([panel], step_seconds=0.05, max_torque=2.0)
    return np.asarray(frame.convert("RGB")).astype(int)[58:358, 16:316]


@pytest.mark.parametrize(
    ("angle", "at"), [(0.0, (0, -1)), (math.pi / 2, (-1, 0)), (math.pi, (0, 1)), (-math.pi / 2, (1, 0))]
)
def test_pendulum_points_up_at_0_and_turns_counter_clockwise(angle, at):
    """As Gymnasium draws it."""
    pixels = frame_of(angle)
    rows, columns = np.nonzero(pixels[..., 2] > pixels[..., 0] + 60)  # blue
    middle = [columns.mean() - 149.5, rows.mean() - 149.5]
    np.testing.assert_allclose(middle, 66 * np.array(at), atol=4)  # half of a rod of 0.44 x 300 pixels


def test_torque_is_an_arc_on_its_side_as_long_as_it_is_strong():
    def orange(torque):
        pixels = frame_of(math.pi, torque)
        found = pixels[..., 0] > pixels[..., 2] + 60
        return found[:, :140].sum(), found[:, 160:].sum()

    left, right = orange(1.0)
    assert left > 100
    assert right == 0
    assert orange(-1.0)[1] == pytest.approx(left, rel=0.05)
    assert orange(0.5)[0] == pytest.approx(left / 2, rel=0.25)
    assert orange(0.0) == (0, 0)


def test_frames_last_for_a_step_and_the_last_one_longer():
    panel = animation.Panel("t", "s", np.arange(3.0)[:, None], np.zeros((3, 1)))
    frames = animation.pendulums([panel], step_seconds=0.2, max_torque=2.0)
    with Image.open(io.BytesIO(animation.gif(frames, 0.2, animation.palette()))) as picture:
        durations = []
        for number in range(picture.n_frames):
            picture.seek(number)
            durations.append(picture.info["duration"])
    assert durations == [200, 200, 1500]  # ms
