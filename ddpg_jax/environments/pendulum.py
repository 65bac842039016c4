"""Pendulum-v1's evaluation: start states that all evaluations share, and the optimum's return from each of them."""

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import jax
import numpy as np

from ddpg_jax.algorithm.environment import State
from ddpg_jax.algorithm.types import PRNGKey

ENV_ID = "Pendulum-v1"
"""Its name in gymnax and in Gymnasium."""

SOLVED_SHORTFALL = 20.0
"""An agent has solved Pendulum if its mean shortfall to the optimum is at most this, in units of return."""

NUM_STARTS = 512
"""The number of start states with a known optimum, which all evaluations share."""


def optimum() -> dict[str, Any]:
    """Returns the fields of a `Task` that hold the optimum."""
    return {"optimal_returns": _table()["return_optimal"], "solved_shortfall": SOLVED_SHORTFALL}


def starts_in_gymnax(env: Any, reset: Callable[[PRNGKey], tuple[State, jax.Array]]) -> Callable[[int], tuple]:
    """Returns `Task.starts` for gymnax's `env`; `reset` gives all of a state except the angle and the velocity."""

    @jax.jit  # one program instead of one per operation
    def placed(theta: jax.Array, theta_dot: jax.Array) -> tuple[State, jax.Array]:
        template, _ = jax.vmap(reset)(jax.random.split(jax.random.key(0), len(theta)))
        state = template.replace(theta=theta, theta_dot=theta_dot)
        return state, jax.vmap(env.get_obs)(state)

    return lambda num: placed(*_start_states(num).astype(np.float32).T)


def starts_in_gymnasium(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `Task.starts` for Gymnasium: states [num, 2] in rad and rad/s, and observations [num, 3]."""
    states = _start_states(num)
    theta, velocity = states.T
    return states, np.stack([np.cos(theta), np.sin(theta), velocity], axis=1)


def _start_states(num: int) -> np.ndarray:
    """Returns the first start states [num, 2] float64: angles in rad and velocities in rad/s."""
    if num > NUM_STARTS:
        raise ValueError(
            f"the number of episodes is {num}, but must be at most {NUM_STARTS}: Pendulum has no more start states"
        )
    return np.stack([_table()["theta"], _table()["theta_dot"]], axis=1)[:num]


@cache
def _table() -> dict[str, np.ndarray]:
    with resources.files("ddpg_jax").joinpath("environments/data/pendulum_optimum.npz").open("rb") as file:
        return dict(np.load(file, allow_pickle=False))
