"""Environments of Brax; the only file that knows the library."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments import brax_interface

EPISODE_LENGTH = 1000
"""The time limit, in steps, with which Brax's own agents train."""


def names() -> tuple[str, ...]:
    """Returns what `make` takes."""
    from brax import envs

    return tuple(sorted(name for name in envs._envs if name != "fast"))


def make(name: str, env_id: str, arguments: Mapping[str, Any]) -> Environment:
    """Returns an environment of Brax.

    Args:
        name: Brax's, such as "reacher".
        env_id: the name in messages and files.
        arguments: of the environment, such as its physics `backend`; and `episode_length`, the time limit.

    Raises:
        ValueError: if Brax has no such environment.
    """
    from brax import envs

    if name not in names():
        raise ValueError(f"env_id is {env_id!r}, but must be brax: and one of {', '.join(names())}")
    own = dict(arguments)
    max_steps = int(own.pop("episode_length", EPISODE_LENGTH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Brax's advice to use MuJoCo Playground
        try:
            env = envs.get_environment(name, **own)
        except (TypeError, ValueError, AssertionError) as error:
            given = " ".join(f"{key}={value}" for key, value in own.items()) or "none"
            raise ValueError(f"env_args is {given}, but must be arguments that {env_id} takes: {error}") from error
        return brax_interface.adapt(env, env_id, max_steps, draw=partial(_draw, env))


def _draw(env: Any, states: Sequence[Any]) -> Sequence[np.ndarray]:
    from brax.io import image

    return image.render_array(env.sys, [state.pipeline_state for state in states], height=240, width=320)
