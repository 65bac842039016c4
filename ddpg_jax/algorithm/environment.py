"""Environments as pure functions; the only module that knows gymnax.

`step` does not reset: what ends an episode, why it ended and what was seen last stay apart, and `rollout.py` begins
the next one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.types import PRNGKey

State = Any
"""An environment's own state, a tree of arrays."""


class Step(NamedTuple):
    """What an environment answers to an action."""

    observation: jax.Array
    """[O] what is seen after the action, before any reset."""
    reward: jax.Array
    """[]"""
    terminated: jax.Array
    """[] bool: the episode ended in a terminal state, which has no future."""
    truncated: jax.Array
    """[] bool: the episode was cut off by a time limit, in a state that has one."""


@dataclass(frozen=True, eq=False)
class Environment:
    """An environment of one agent. Any functions of these signatures make one."""

    env_id: str
    """Its name, for messages and files."""
    observation_size: int
    """O."""
    low: tuple[float, ...]
    """Least action, in the environment's units; A numbers."""
    high: tuple[float, ...]
    """Greatest action."""
    max_steps: int
    """Time limit: the steps after which an episode is cut off."""
    reset: Callable[[PRNGKey], tuple[State, jax.Array]]
    """Consumes the key; returns a start state and its observation [O]."""
    step: Callable[[PRNGKey, State, jax.Array], tuple[State, Step]]
    """(key, state, action [A]); consumes the key. The action is within the bounds."""
    starts: Callable[[int], tuple[State, jax.Array]] | None = None
    """The start states that evaluations share: n -> states and observations with a leading axis n.
    None: those that `reset` draws from a fixed key."""
    optimal_returns: tuple[float, ...] | None = None
    """The highest return that can be reached from each of the first start states, where it is known."""

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.low)

    def evaluation_starts(self, num: int) -> tuple[State, jax.Array]:
        """The first `num` of the start states that all evaluations share, with their observations [num, O]."""
        return self._drawn(_EVALUATION_SEED, num) if self.starts is None else self.starts(num)

    def selection_starts(self, num: int) -> tuple[State, jax.Array]:
        """Other start states that all agents share, to choose among them by: what is reported stays out of that."""
        return self._drawn(_SELECTION_SEED, num)

    def _drawn(self, seed: int, num: int) -> tuple[State, jax.Array]:
        return jax.vmap(lambda i: self.reset(jax.random.fold_in(jax.random.key(seed), i)))(jnp.arange(num))


_EVALUATION_SEED = 512_000_001  # numbers that no one uses as a root seed
_SELECTION_SEED = 512_000_002


@lru_cache(maxsize=64)
def make(env_id: str) -> Environment:
    """The named gymnax environment.

    Args:
        env_id: such as "Pendulum-v1".

    Raises:
        ValueError: if gymnax has no such environment, or its actions or observations are not bounded boxes of numbers.
    """
    import gymnax  # here, because it takes seconds, which `--help` need not pay
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

    def reset(key: PRNGKey) -> tuple[State, jax.Array]:
        observation, state = env.reset_env(key, params)
        return _strong(state), jnp.ravel(observation)

    def step(key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        observation, new, reward, terminated, _ = env.step_env(key, state, action.reshape(box.shape), params)
        truncated = env.is_truncated(new, params) & ~terminated
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype).reshape(old.shape), new, state)
        return new, Step(jnp.ravel(observation), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)

    observation_size = jax.eval_shape(reset, jax.random.key(0))[1].shape[0]
    pendulum = _pendulum_evaluation(env) if env_id == "Pendulum-v1" else {}
    return Environment(
        env_id=env_id,
        observation_size=observation_size,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        max_steps=int(params.max_steps_in_episode),
        reset=reset,
        step=step,
        **pendulum,
    )


def _strong(state: State) -> State:
    """The state as arrays whose dtypes do not change when it goes round a loop."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), state)


def _words(space: Any) -> str:
    return f"one of {space.n} choices" if hasattr(space, "n") else type(space).__name__


NUM_PENDULUM_STARTS = 512
"""Start states of Pendulum with a known optimum, that all evaluations share."""


def _pendulum_evaluation(env: Any) -> dict[str, Any]:
    """Pendulum's evaluation: 512 fixed start states, and the optimum's return from each in 200 steps."""
    with resources.files("ddpg_jax").joinpath("environments/data/pendulum_optimum.npz").open("rb") as file:
        table = dict(np.load(file, allow_pickle=False))

    def starts(num: int) -> tuple[State, jax.Array]:
        if num > NUM_PENDULUM_STARTS:
            raise ValueError(f"eval_episodes is {num}, but Pendulum has {NUM_PENDULUM_STARTS} evaluation start states")
        theta, theta_dot = (jnp.asarray(table[name][:num], jnp.float32) for name in ("theta", "theta_dot"))
        _, template = jax.vmap(lambda key: env.reset_env(key, env.default_params))(
            jax.random.split(jax.random.key(0), num)
        )
        state = _strong(template.replace(theta=theta, theta_dot=theta_dot))
        return state, jax.vmap(env.get_obs)(state)

    return {"starts": starts, "optimal_returns": tuple(table["return_optimal"].tolist())}
