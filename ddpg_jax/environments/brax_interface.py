"""Environments with the interface of Brax and MuJoCo Playground: `reset(rng) -> State`, `step(State, action)`.

Their wrappers are not used: the training loop begins episodes, cuts them off and repeats actions itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey
from ddpg_jax.environments.adapt import flat, with_default_settings
from ddpg_jax.environments.task import Task


def adapt(env: Any, env_id: str, max_steps: int, draw: Callable[[Sequence[Any]], Sequence[np.ndarray]]) -> Task:
    """Returns the environment of a library with Brax's interface.

    Actions are within [-1, 1], like those of the libraries' own agents. An observation or a reward that is not finite,
    as in an unstable simulation, ends the episode in a terminal state without a reward.

    Args:
        env: without wrappers.
        env_id: the name in messages and files.
        max_steps: the time limit, which such an environment does not have itself.
        draw: states of the library -> frames.
    """

    @jax.jit
    @with_default_settings
    def reset(key: PRNGKey) -> tuple[State, jax.Array]:
        state = env.reset(jax.random.key_data(key))
        return state, flat(state.obs)

    @jax.jit
    @with_default_settings
    def step(key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        new = env.step(state, action)
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype).reshape(old.shape), new, state)
        observation, reward = flat(new.obs), jnp.asarray(new.reward, jnp.float32)
        sound = jnp.isfinite(observation).all() & jnp.isfinite(reward)
        return new, Step(
            observation=jnp.where(jnp.isfinite(observation), observation, 0.0),
            reward=jnp.where(sound, reward, 0.0),
            terminated=(new.done != 0) | ~sound,
            truncated=jnp.bool_(False),
        )

    size = jax.eval_shape(reset, jax.random.key(0))[1].shape[0]
    low, high = (-1.0,) * env.action_size, (1.0,) * env.action_size
    return Task(Environment(env_id, size, low, high, max_steps, reset, step, cacheable=True), draw=draw)
