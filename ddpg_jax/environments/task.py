"""A task: an environment together with what is known about it, such as the start states of its evaluations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.environment import Environment, HostEnv, State
from ddpg_jax.algorithm.evaluation import Starts
from ddpg_jax.algorithm.types import PRNGKey

EVALUATION_SEED, SELECTION_SEED = 512_000_001, 512_000_002
"""Numbers that nobody uses as a root seed."""

_EPISODES = np.uint32(2**32 - 1)
"""Folded into a seed's key to make the keys of its episodes; the resets fold in the numbers from 0 on."""


@dataclass(frozen=True)
class Task:
    """An environment, and what is known about it. A function of your own may return one instead of an `Environment`."""

    environment: Environment
    """What agents train and are evaluated in."""
    starts: Callable[[int], tuple[State, Any]] | None = None
    """num -> the start states of evaluations and their observations, with a leading axis num. On the host: seeds
    [num], or states of Pendulum [num, 2].
    None: `reset` draws them from a fixed key."""
    optimal_returns: tuple[float, ...] | None = None
    """The highest possible return from each of the first start states; None: not known."""
    solved_shortfall: float | None = None
    """An agent has solved the task if its mean shortfall to those returns is at most this; None: not defined."""
    observation_parts: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Names and shapes of the arrays of which the observation is made, in their order; empty: it is one vector."""
    draw: Callable[[Sequence[State]], Sequence[np.ndarray]] | None = None
    """States -> frames [H, W, 3] of 8-bit colours; None: they cannot be drawn."""
    film_env: HostEnv | None = None
    """Makes environments on the host whose `render` draws them; None: they cannot be drawn, or are not on the host."""

    def __post_init__(self) -> None:
        if not isinstance(self.environment, Environment):
            raise ValueError(f"environment is {self.environment!r}, but must be a ddpg_jax.Environment")
        if self.optimal_returns is not None:
            numbers = np.asarray(self.optimal_returns, np.float64)
            if numbers.ndim != 1 or not np.isfinite(numbers).all():
                rule = "finite numbers, one per start"
                raise ValueError(f"optimal_returns is {self.optimal_returns}, but must be {rule}")
            object.__setattr__(self, "optimal_returns", tuple(numbers.tolist()))

    def evaluation_starts(self, num: int) -> Starts:
        """Returns the first `num` of the start states that all evaluations share; ValueError if there are fewer."""
        if self.starts is None:
            return self.starts_of(EVALUATION_SEED, num)
        state, observation = self.starts(int(num))
        sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves((state, observation))}
        if sizes != {(num,)}:
            found = f"starts of {self.environment.env_id!r} returns arrays whose first axes are {sorted(sizes)}"
            raise ValueError(f"{found}, but must return {num} start states")
        return Starts(state, observation, _episode_keys(EVALUATION_SEED, int(num)))

    def selection_starts(self, num: int) -> Starts:
        """Returns the start states by which the best agent is chosen; reported returns do not use them."""
        return self.starts_of(SELECTION_SEED, num)

    def starts_of(self, seed: int, num: int) -> Starts:
        """Returns start states that are drawn with a seed; on the host: the environments' seeds [num] uint32."""
        if not 0 <= seed < 2**32 or seed != int(seed):
            raise ValueError(f"seed is {seed}, but must be a whole number >= 0 (at most {2**32 - 1})")
        reset, seed, num = self.environment.reset, int(seed), int(num)
        if self.environment.cacheable:
            state, observation = _draw_and_keep(reset, seed, num)
        else:
            # JAX keeps a compiled program for as long as its function. An environment of the user's may have changed
            # although it is equal to what it was, so each call compiles a function of its own.
            state, observation = jax.jit(lambda: _draw(reset, seed, num))()
        if self.environment.host_env is not None:
            state, observation = np.asarray(state.seed), np.asarray(observation)
        return Starts(state, observation, _episode_keys(seed, num))

    def optimum(self, num: int) -> np.ndarray | None:
        """Returns the highest possible returns [num] from the first start states of evaluations, if they are known."""
        known = self.optimal_returns
        if known is not None and num > len(known):
            found = f"optimal_returns of {self.environment.env_id!r} are {len(known)} numbers"
            raise ValueError(f"{found}, but must be at least {num}, one per start state")
        return None if known is None else np.asarray(known[:num])


def _draw(reset: Callable[[PRNGKey], tuple[State, jax.Array]], seed: int, num: int) -> tuple[State, jax.Array]:
    """Draws start states; number i is the same however many there are."""
    root = jax.random.key(seed)
    return jax.vmap(lambda i: reset(jax.random.fold_in(root, i)))(jnp.arange(num))


_draw_and_keep = jax.jit(_draw, static_argnums=(0, 1, 2))


@partial(jax.jit, static_argnums=(0, 1))
def _episode_keys(seed: int, num: int) -> jax.Array:
    """Returns the keys [num] of the episodes from a seed's start states; none of them is the key of a reset."""
    episodes = jax.random.fold_in(jax.random.key(seed), _EPISODES)
    return jax.vmap(lambda i: jax.random.fold_in(episodes, i))(jnp.arange(num))
