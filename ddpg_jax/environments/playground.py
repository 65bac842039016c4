"""Environments of MuJoCo Playground; the only file that knows the library."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ddpg_jax.environments.arguments import parse
from ddpg_jax.environments.brax import wrap
from ddpg_jax.environments.task import Task


def names() -> tuple[str, ...]:
    """Returns the tasks of the DeepMind Control Suite, whose models the library contains."""
    from mujoco_playground import dm_control_suite

    return tuple(sorted(dm_control_suite.ALL_ENVS))


def has(name: str) -> bool:
    """Returns whether the library has an environment of that name."""
    from mujoco_playground import registry

    return name in registry.ALL_ENVS


def make(name: str, env_id: str, env_args: Sequence[str]) -> Task:
    """Returns an environment such as "CartpoleSwingup".

    Its arguments are fields of the environment's configuration, such as `episode_length` or `reward_config.scale`.
    """
    from mujoco_playground import registry

    def draw(states: Sequence[Any]) -> Sequence[np.ndarray]:
        camera = env.mj_model.camera(0).name if env.mj_model.ncam else None  # the first follows a robot that moves away
        with contextlib.redirect_stderr(io.StringIO()):  # the library's progress bar does not say what it counts
            return env.render(list(states), height=240, width=320, camera=camera)

    config = registry.get_default_config(name).lock()  # so that unknown fields are refused
    # The library's own choice of physics needs an NVIDIA GPU.
    impl = {"impl": "jax"} if jax.default_backend() == "cpu" and "impl" in config else {}
    config.update_from_flattened_dict({**impl, **parse(env_args, config.to_dict())})
    env = registry.load(name, config=config)
    return wrap(env, env_id, int(config.episode_length), draw)
