"""Environments of Brax; the only file that knows the library."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ddpg_jax.environments import brax_interface
from ddpg_jax.environments.arguments import defaults_of, parse, refusing
from ddpg_jax.environments.task import Task

EPISODE_LENGTH = 1000
"""The time limit, in steps, with which Brax's own agents train."""


def names() -> tuple[str, ...]:
    """Returns the names for `make`."""
    from brax import envs

    return tuple(sorted(name for name in envs._envs if name != "fast"))


def has(name: str) -> bool:
    """Returns whether the library has an environment of that name."""
    return name in names()


def make(name: str, env_id: str, env_args: Sequence[str]) -> Task:
    """Returns an environment of Brax, such as "reacher" (see `registry.make_task`).

    Its arguments are the environment's own, such as its physics `backend`, and `episode_length`, the time limit.

    Raises:
        ValueError: if Brax has no such environment, or refuses the arguments.
    """
    from brax import envs

    if not has(name):
        raise ValueError(f"env_id is {env_id!r}, but must be brax: and one of {', '.join(names())}")
    with warnings.catch_warnings(), refusing(env_id, env_args, "an environment that Brax makes here"):
        warnings.simplefilter("ignore")  # Brax's advice to use MuJoCo Playground
        arguments = parse(env_args, {**defaults_of(envs._envs[name]), "episode_length": EPISODE_LENGTH})
        max_steps = arguments.pop("episode_length", EPISODE_LENGTH)
        env = envs.get_environment(name, **arguments)
        return brax_interface.adapt(env, env_id, max_steps, draw=partial(_draw, env))


def _draw(env: Any, states: Sequence[Any]) -> Sequence[np.ndarray]:
    from brax.io import image

    return image.render_array(env.sys, [state.pipeline_state for state in states], height=240, width=320)
