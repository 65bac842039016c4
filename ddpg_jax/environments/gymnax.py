"""Environments of gymnax with continuous, bounded actions; the only file that knows the library."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey
from ddpg_jax.environments import pendulum
from ddpg_jax.processes.imports import import_matplotlib


def make(env_id: str) -> Environment:
    """Returns an environment of gymnax.

    Args:
        env_id: such as "Pendulum-v1".

    Raises:
        ValueError: if gymnax has no such environment, or its actions or observations are not bounded boxes of numbers.
    """
    import_matplotlib()  # which gymnax imports, too
    import gymnax  # here, because the import takes seconds
    from gymnax.environments import spaces

    if env_id not in gymnax.registered_envs:
        continuous = "Pendulum-v1, MountainCarContinuous-v0, PointRobot-misc, Reacher-misc, Swimmer-misc"
        raise ValueError(
            f"env_id is {env_id!r}, but must be an environment of gymnax with continuous actions: {continuous}"
        )
    env, params = gymnax.make(env_id)
    box = env.action_space(params)
    if not isinstance(box, spaces.Box):
        raise ValueError(f"env_id is {env_id!r}, but must have continuous actions; its actions are {_words(box)}")
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), box.shape).ravel() for bound in (box.low, box.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"env_id is {env_id!r}, but must have bounded actions; its bounds are {low} to {high}")

    @_with_default_settings
    def reset(key: PRNGKey) -> tuple[State, jax.Array]:
        observation, state = env.reset_env(key, params)
        return strong_types(state), jnp.ravel(observation)

    @_with_default_settings
    def step(key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        observation, new, reward, terminated, _ = env.step_env(key, state, action.reshape(box.shape), params)
        truncated = env.is_truncated(new, params) & ~terminated
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype).reshape(old.shape), new, state)
        return new, Step(jnp.ravel(observation), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)

    observation_size = jax.eval_shape(reset, jax.random.key(0))[1].shape[0]
    known = pendulum.evaluation(env, reset) if env_id == pendulum.ENV_ID else {}
    return Environment(
        env_id=env_id,
        observation_size=observation_size,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        max_steps=int(params.max_steps_in_episode),
        reset=reset,
        step=step,
        **known,
    )


def _with_default_settings(function: Callable) -> Callable:
    """Runs a function with JAX's defaults: the library is not written for strict promotion or 64 bits."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*arguments)

    return run


def strong_types(state: State) -> State:
    """Returns the state as arrays whose dtypes do not change in a loop."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), state)


def _words(space: Any) -> str:
    return f"one of {space.n} choices" if hasattr(space, "n") else type(space).__name__
