"""An environment as two pure functions, `reset` and `step`.

`step` does not reset: the end of an episode, its reason and the last observation stay apart, and the loop begins the
next episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.types import PRNGKey

State = Any
"""The state of an environment, a tree of arrays."""


class Step(NamedTuple):
    """The result of an action."""

    observation: jax.Array
    """[O] the observation after the action, before any reset."""
    reward: jax.Array
    """[] the reward of the action."""
    terminated: jax.Array
    """[] bool: the episode ended in a terminal state, which has no future value."""
    truncated: jax.Array
    """[] bool: the episode was cut off by a time limit, in a state that has a future value."""


@dataclass(frozen=True, eq=False)
class Environment:
    """An environment of one agent, made from any functions of these signatures."""

    env_id: str
    """The name in messages and files."""
    observation_size: int
    """O."""
    low: tuple[float, ...]
    """The smallest action, in the environment's units; A numbers."""
    high: tuple[float, ...]
    """The largest action."""
    max_steps: int
    """Time limit: the number of steps after which an episode is cut off."""
    reset: Callable[[PRNGKey], tuple[State, jax.Array]]
    """Consumes the key; returns a start state and its observation [O]."""
    step: Callable[[PRNGKey, State, jax.Array], tuple[State, Step]]
    """(key, state, action [A]); consumes the key. The action is within the bounds."""
    starts: Callable[[int], tuple[State, jax.Array]] | None = None
    """n -> the start states that evaluations share, and their observations, with a leading axis n.
    None: `reset` draws them from a fixed key."""
    optimal_returns: tuple[float, ...] | None = None
    """The optimum's return from each of the first start states, where it is known."""
    solved_shortfall: float | None = None
    """An agent has solved the task if its mean shortfall to those returns is at most this; None: not defined."""

    @property
    def action_size(self) -> int:
        """The number of actions, A."""
        return len(self.low)

    def evaluation_starts(self, num: int) -> tuple[State, jax.Array]:
        """Returns the first `num` of the start states that all evaluations share, with their observations [num, O]."""
        return self._drawn(_EVALUATION_SEED, num) if self.starts is None else self.starts(num)

    def selection_starts(self, num: int) -> tuple[State, jax.Array]:
        """Returns the start states by which the best agent is chosen; they are not those of reported returns."""
        return self._drawn(_SELECTION_SEED, num)

    def _drawn(self, seed: int, num: int) -> tuple[State, jax.Array]:
        return jax.vmap(lambda i: self.reset(jax.random.fold_in(jax.random.key(seed), i)))(jnp.arange(num))


_EVALUATION_SEED = 512_000_001  # numbers that nobody uses as a root seed
_SELECTION_SEED = 512_000_002
