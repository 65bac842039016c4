"""Environments of MuJoCo Playground; the only file that knows the library."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments import brax_interface


def names() -> tuple[str, ...]:
    """Returns the tasks of the DeepMind Control Suite, whose models the library contains."""
    from mujoco_playground import dm_control_suite

    return tuple(sorted(dm_control_suite.ALL_ENVS))


def make(name: str, env_id: str, arguments: Mapping[str, Any]) -> Environment:
    """Returns an environment of MuJoCo Playground.

    Args:
        name: Playground's, such as "CartpoleSwingup".
        env_id: the name in messages and files.
        arguments: values of the environment's configuration, such as `episode_length` or `reward_config.scale`.

    Raises:
        ValueError: if Playground has no such environment, or its configuration no such field.
    """
    from mujoco_playground import registry

    if name not in registry.ALL_ENVS:
        raise ValueError(f"env_id is {env_id!r}, but must be playground: and one of {', '.join(names())}")
    config = registry.get_default_config(name).lock()  # so that unknown fields are refused
    # The library's own choice of physics needs an NVIDIA GPU.
    impl = {"impl": "jax"} if jax.default_backend() == "cpu" and "impl" in config else {}
    try:
        config.update_from_flattened_dict({**impl, **arguments})
    except (KeyError, TypeError) as error:
        given = " ".join(f"{key}={value}" for key, value in arguments.items())
        raise ValueError(
            f"env_args is {given}, but must be fields of the configuration of {env_id}: {error}"
        ) from error
    env = registry.load(name, config=config)
    return brax_interface.adapt(env, env_id, int(config.episode_length), draw=partial(_draw, env))


def _draw(env: Any, states: Sequence[Any]) -> Sequence[np.ndarray]:
    """Draws states as the model's first camera sees them, which follows a robot that moves away."""
    camera = env.mj_model.camera(0).name if env.mj_model.ncam else None
    with contextlib.redirect_stderr(io.StringIO()):  # the library's progress bar does not say what it counts
        return env.render(list(states), height=240, width=320, camera=camera)
