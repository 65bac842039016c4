"""Environments of Brax, and of libraries with its interface: `reset(rng) -> State`, `step(State, action) -> State`.

Their wrappers are not used: the training loop begins episodes, cuts them off and repeats actions itself.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey
from ddpg_jax.environments.adapt import flat, with_default_settings
from ddpg_jax.environments.arguments import defaults_of, parse
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
    """Returns an environment of Brax, such as "reacher".

    Its arguments are the environment's own, such as its physics `backend`, and `episode_length`, the time limit.
    """
    from brax import envs

    def draw(states: Sequence[Any]) -> Sequence[np.ndarray]:
        from brax.io import image

        return image.render_array(env.sys, [state.pipeline_state for state in states], height=240, width=320)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Brax's advice to use MuJoCo Playground
        arguments = parse(env_args, {**defaults_of(envs._envs[name]), "episode_length": EPISODE_LENGTH})
        max_steps = arguments.pop("episode_length", EPISODE_LENGTH)
        env = envs.get_environment(name, **arguments)
        return wrap(env, env_id, max_steps, draw)


def wrap(env: Any, env_id: str, max_steps: int, draw: Callable[[Sequence[Any]], Sequence[np.ndarray]]) -> Task:
    """Returns the task of a library's environment without wrappers, which has no time limit of its own.

    Actions are within [-1, 1], like those of the libraries' own agents. An observation or a reward that is not finite,
    as in an unstable simulation, ends the episode in a terminal state without a reward.
    """

    @jax.jit
    @with_default_settings
    def reset(key: PRNGKey) -> tuple[State, Any]:
        state = env.reset(jax.random.key_data(key))
        return state, state.obs

    @jax.jit
    @with_default_settings
    def step(key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        new = env.step(state, action)
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype).reshape(old.shape), new, state)
        reward = jnp.asarray(new.reward, jnp.float32)
        sound = jnp.isfinite(flat(new.obs)).all() & jnp.isfinite(reward)
        observation = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0.0), new.obs)
        return new, Step(observation, jnp.where(sound, reward, 0.0), (new.done != 0) | ~sound, jnp.bool_(False))

    size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(reset, jax.random.key(0))[1]))
    low, high = (-1.0,) * env.action_size, (1.0,) * env.action_size
    return Task(Environment(env_id, size, low, high, max_steps, reset, step, cacheable=True), draw=draw)
