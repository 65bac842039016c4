"""An environment as two pure functions, `reset` and `step`.

`step` does not reset: the end of an episode, its reason and the last observation stay apart, and the loop begins the
next episode.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

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


class HostSteps(NamedTuple):
    """The results of the actions in n environments on the host, as NumPy arrays."""

    step: Step
    """[n, ...] of each; the observations are those before any reset."""
    observation: np.ndarray
    """[n, O] the observations to go on from, of new episodes where others have ended."""


class HostEnvironments(Protocol):
    """Environments that step side by side on the host and begin new episodes themselves."""

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begins an episode in each of the n environments, by its seed; returns the observations [n, O]."""

    def step(self, actions: np.ndarray) -> HostSteps:
        """Executes the actions [n, A]."""


class HostEpisodes(Protocol):
    """Episodes on the host, each from a given start, for evaluation."""

    def begin(self, starts: Any, num_agents: int) -> np.ndarray:
        """Begins an episode from each of S start states for each agent; returns the observations [N, S, O]."""

    def step(self, actions: np.ndarray, alive: np.ndarray) -> Step:
        """Executes the actions [N, S, A] where an episode goes on (alive [N, S]); returns NumPy arrays [N, S, ...]."""


class Outside(Protocol):
    """A task whose environments are objects on the host, not functions that can be compiled. Hashable."""

    def environments(self, num: int, max_steps: int) -> HostEnvironments:
        """Makes environments for training, whose episodes are cut off after `max_steps`."""

    def episodes(self) -> HostEpisodes:
        """Makes what evaluations run in."""

    def film(self, act: Callable[[np.ndarray], np.ndarray], start: Any, every: int) -> Sequence[np.ndarray]:
        """Draws an episode from one start state [1]; returns every n-th frame [H, W, 3]. `act`: [O] -> [A]."""

    def repeating(self, times: int) -> "Outside":
        """Returns the task in which every action is executed several times, and the rewards are added up."""


@dataclass(frozen=True)
class Environment:
    """An environment of one agent, made from any functions of these signatures.

    Environments are compared by value: equal ones, with the same functions, share a compiled program.

    Raises:
        ValueError: names the field, its value and the rule it breaks.
    """

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
    """Consumes the key; returns a start state and its observation [O], or a tree of arrays with O numbers in all, which
    `make_setup` flattens."""
    step: Callable[[PRNGKey, State, jax.Array], tuple[State, Step]]
    """(key, state, action [A]); consumes the key. The action is within the bounds."""
    starts: Callable[[int], tuple[State, jax.Array]] | None = None
    """n -> the start states that evaluations share, and their observations, with a leading axis n.
    None: `reset` draws them from a fixed key."""
    optimal_returns: tuple[float, ...] | None = None
    """The optimum's return from each of the first start states, where it is known."""
    solved_shortfall: float | None = None
    """An agent has solved the task if its mean shortfall to those returns is at most this; None: not defined."""
    observation_parts: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Names and shapes of the arrays of which the observation was put together, in their order; empty: it is one."""
    draw: Callable[[Sequence[State]], Sequence[np.ndarray]] | None = None
    """States -> frames [H, W, 3] of 8-bit colours; None: there is nothing that draws them."""
    outside: Outside | None = None
    """Makes environments on the host; then `step` is not used, and `reset` returns a `Pending` state. None: there are
    none, `reset` and `step` are the task."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bounds = tuple(float(bound) for bound in getattr(self, name))
            object.__setattr__(self, name, bounds)
            if not bounds or not all(map(math.isfinite, bounds)):
                raise ValueError(f"{name} is {bounds}, but must be finite numbers, one per action")
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"high is {self.high}, but must be above low, {self.low}, in each action")
        for name in ("observation_size", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be a whole number >= 1")

    @property
    def action_size(self) -> int:
        """The number of actions, A."""
        return len(self.low)

    def evaluation_starts(self, num: int) -> tuple[State, jax.Array]:
        """Returns the first `num` of the start states that all evaluations share, with their observations [num, O]."""
        return _drawn(self.reset, _EVALUATION_SEED, num) if self.starts is None else self.starts(num)

    def starts_of(self, seed: int, num: int) -> tuple[State, jax.Array]:
        """Returns start states that a seed of the caller's draws, with their observations [num, O]."""
        return _drawn(self.reset, seed, num)

    def selection_starts(self, num: int) -> tuple[State, jax.Array]:
        """Returns the start states by which the best agent is chosen; they are not those of reported returns."""
        return _drawn(self.reset, _SELECTION_SEED, num)


_EVALUATION_SEED = 512_000_001  # numbers that nobody uses as a root seed
_SELECTION_SEED = 512_000_002


@partial(jax.jit, static_argnums=(0, 1, 2))
def _drawn(reset: Callable[[PRNGKey], tuple[State, jax.Array]], seed: int, num: int) -> tuple[State, jax.Array]:
    return jax.vmap(lambda i: reset(jax.random.fold_in(jax.random.key(seed), i)))(jnp.arange(num))
