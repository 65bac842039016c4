"""Real transitions of Pendulum for the parity tests: gymnax under uniformly random actions."""

import jax
import numpy as np

from ddpg_jax.algorithm.types import Transition
from ddpg_jax.environments.registry import make_task

EPISODES = 24


def pendulum_batches(num: int, size: int, *, time_limit_terminal: bool = False, seed: int = 0) -> Transition:
    """Returns `num` minibatches of `size` distinct transitions, float32 NumPy arrays [num, size, ...]."""
    pool = _pendulum_transitions(seed, time_limit_terminal)
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.choice(len(pool.reward), size, replace=False) for _ in range(num)])
    return Transition(*(field[rows] for field in pool))


def _pendulum_transitions(seed: int, time_limit_terminal: bool) -> Transition:
    """Returns all transitions of `EPISODES` whole episodes along one axis."""
    environment = make_task("Pendulum-v1").environment

    def step(carry, _):
        key, state, observation = carry
        key, action_key, step_key = jax.random.split(key, 3)
        action = jax.random.uniform(action_key, (1,), minval=environment.low[0], maxval=environment.high[0])
        state, new = environment.step(step_key, state, action)
        no_future = new.terminated | new.truncated if time_limit_terminal else new.terminated
        return (key, state, new.observation), Transition(
            observation, action, new.reward, 1.0 - no_future, new.observation
        )

    def episode(key):
        key, reset_key = jax.random.split(key)
        start = (key, *environment.reset(reset_key))
        return jax.lax.scan(step, start, length=environment.max_steps)[1]

    transitions = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(seed), EPISODES))
    return Transition(*(np.asarray(field).reshape(-1, *field.shape[2:]) for field in transitions))
