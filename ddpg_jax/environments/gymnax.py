"""Environments of gymnax with continuous, bounded actions; the only file that knows the library."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey
from ddpg_jax.environments import pendulum
from ddpg_jax.environments.adapt import with_default_settings
from ddpg_jax.environments.arguments import RefusedError, parse
from ddpg_jax.environments.task import Task

CONTINUOUS = ("Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc", "Reacher-misc", "Swimmer-misc")
"""gymnax's own environments with continuous actions; a program may register more with gymnax."""


def names() -> tuple[str, ...]:
    """Returns the names for `make` that are listed."""
    return CONTINUOUS


def has(name: str) -> bool:
    """Returns whether the library has an environment of that name, or this program has registered one with it."""
    return name in _library().registered_envs


def make(name: str, env_id: str, env_args: Sequence[str]) -> Task:
    """Returns an environment of gymnax, or one that this program has registered with it.

    Its arguments are fields of the environment's parameters.
    """
    env, params = _library().make(name)
    fields = vars(params)
    values = parse(env_args, fields)
    for field, value in values.items():
        is_number = isinstance(value, int | float) or not isinstance(fields.get(field), int | float)
        if field not in fields or not is_number:
            rule = f"numbers for parameters of {env_id}: {', '.join(fields)}"
            raise RefusedError(f"env_args has {field}={value}, but must have {rule}")
    params = params.replace(**values)
    box = env.action_space(params)
    if not hasattr(box, "low"):
        raise RefusedError(f"env_id is {env_id!r}, but must have continuous actions; its actions are {box}")
    bounds = (np.broadcast_to(np.asarray(bound, np.float64), box.shape) for bound in (box.low, box.high))
    low, high = (tuple(bound.ravel().tolist()) for bound in bounds)

    @with_default_settings
    def reset(key: PRNGKey) -> tuple[State, jax.Array]:
        observation, state = env.reset_env(key, params)
        return jax.tree.map(jnp.asarray, state), jnp.ravel(observation)  # the time is a Python number

    @with_default_settings
    def step(key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        observation, new, reward, terminated, _ = env.step_env(key, state, action.reshape(box.shape), params)
        truncated = env.is_truncated(new, params) & ~terminated
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype).reshape(old.shape), new, state)
        return new, Step(jnp.ravel(observation), reward, terminated, truncated)

    size, limit = jax.eval_shape(reset, jax.random.key(0))[1].size, params.max_steps_in_episode
    # A program may change what it has registered.
    environment = Environment(env_id, size, low, high, limit, reset, step, cacheable=name in CONTINUOUS)
    if name != pendulum.ENV_ID or env_args:
        return Task(environment)
    return Task(environment, starts=pendulum.starts_in_gymnax(env, reset), **pendulum.optimum())


def _library() -> Any:
    """Returns gymnax, which takes seconds to import, and which imports Matplotlib.

    Matplotlib reads MPLBACKEND when it is imported, and refuses a name that it does not know, such as that of a
    notebook of another Python. The variable is restored.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import gymnax
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return gymnax
