"""Environments of gymnax with continuous, bounded actions; the only file that knows the library."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey
from ddpg_jax.environments import pendulum
from ddpg_jax.environments.adapting import strong_types, with_default_settings
from ddpg_jax.processes.imports import import_matplotlib

CONTINUOUS = ("Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc", "Reacher-misc", "Swimmer-misc")
"""gymnax's own environments with continuous actions; a program may register more with gymnax."""


def names() -> tuple[str, ...]:
    """Returns what `make` takes."""
    return CONTINUOUS


def make(name: str, env_id: str, arguments: Mapping[str, Any]) -> Environment:
    """Returns an environment of gymnax.

    Args:
        name: gymnax's, such as "Pendulum-v1", or one that this program has registered with it.
        env_id: the name in messages and files.
        arguments: values of fields of the environment's parameters.

    Raises:
        ValueError: if gymnax has no such environment, or its actions or observations are not bounded boxes of numbers.
    """
    import_matplotlib()  # which gymnax imports, too
    import gymnax  # here, because the import takes seconds
    from gymnax.environments import spaces

    if name not in gymnax.registered_envs:
        raise ValueError(
            f"env_id is {env_id!r}, but must be an environment of gymnax with continuous actions "
            f"({', '.join(CONTINUOUS)}), or another that --list-environments shows"
        )
    env, params = gymnax.make(name)
    unknown = [field for field in arguments if not hasattr(params, field)]
    if unknown:
        raise ValueError(f"env_args has {unknown[0]}, but must have parameters of {env_id}: {', '.join(vars(params))}")
    params = params.replace(**arguments)
    box = env.action_space(params)
    if not isinstance(box, spaces.Box):
        raise ValueError(f"env_id is {env_id!r}, but must have continuous actions; its actions are {_words(box)}")
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), box.shape).ravel() for bound in (box.low, box.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"env_id is {env_id!r}, but must have bounded actions; its bounds are {low} to {high}")

    @with_default_settings
    def reset(key: PRNGKey) -> tuple[State, jax.Array]:
        observation, state = env.reset_env(key, params)
        return strong_types(state), jnp.ravel(observation)

    @with_default_settings
    def step(key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        observation, new, reward, terminated, _ = env.step_env(key, state, action.reshape(box.shape), params)
        truncated = env.is_truncated(new, params) & ~terminated
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype).reshape(old.shape), new, state)
        return new, Step(jnp.ravel(observation), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)

    observation_size = jax.eval_shape(lambda: reset(jax.random.key(0)))[1].shape[0]
    known = pendulum.evaluation(env, reset) if name == pendulum.ENV_ID and not arguments else {}
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


def _words(space: Any) -> str:
    return f"one of {space.n} choices" if hasattr(space, "n") else type(space).__name__
