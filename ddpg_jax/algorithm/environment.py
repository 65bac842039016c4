"""An environment as two pure functions, `reset` and `step`.

`step` does not reset. So the loop sees the last observation of an episode and why it ended, then begins the next one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
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


class HostEnvs(Protocol):
    """n environments that step side by side on the host. They do not reset on their own."""

    def __len__(self) -> int:
        """Returns n."""

    def begin(self, indices: np.ndarray, starts: Sequence[Any] | None) -> np.ndarray:
        """Begins an episode in each environment of `indices`, and returns their observations [len(indices), O] float32.

        `starts` has a seed or a start state for each; None: each goes on with its own random numbers.
        """

    def step(self, actions: np.ndarray, active: np.ndarray) -> Step:
        """Executes the actions [n, A] where `active` [n]; returns NumPy arrays [n, ...] that are not written to again.

        Inactive environments keep their last observation, with a reward of 0.
        """

    def keep(self, indices: np.ndarray) -> None:
        """Keeps only these environments, in this order, each in the middle of its episode."""

    def render(self, index: int) -> np.ndarray:
        """Draws one environment as a frame [H, W, 3] of 8-bit colours."""

    def close(self) -> None:
        """Releases what the environments hold."""


class HostEnv(Protocol):
    """A task whose environments are objects on the host, not functions that can be compiled. Hashable."""

    def make(self, num: int, max_steps: int | None = None) -> HostEnvs:
        """Makes environments whose episodes are cut off after `max_steps`; default: the task's own limit."""

    def repeating(self, times: int) -> "HostEnv":
        """Returns the task in which every action is executed `times` times and the rewards are added up."""


@dataclass(frozen=True)
class Environment:
    """One agent's environment; equal ones, with the same functions, share a compiled program.

    A wrong field raises a ValueError, which names the field, its value and the rule that it breaks.
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
    """(key) -> a start state and its observation [O]; consumes the key."""
    step: Callable[[PRNGKey, State, jax.Array], tuple[State, Step]]
    """(key, state, action [A]) -> the next state and the result; consumes the key. The action is within the bounds."""
    host_env: HostEnv | None = None
    """Makes environments on the host, and then `reset` is that of the module `host_env`; None: `reset` and `step` are
    the task."""
    cacheable: bool = False
    """Whether `reset` and `step` never change, so that compiled programs may be kept between calls."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            given = getattr(self, name)
            try:
                bounds = tuple(float(bound) for bound in given)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{name} is {given!r}, but must be numbers, one per action, such as (-1.0,)"
                ) from error
            object.__setattr__(self, name, bounds)
            if not bounds or not np.isfinite(_to_float32(bounds)).all():
                raise ValueError(f"{name} is {bounds}, but must be finite numbers (as float32), one per action")
        if len(self.low) != len(self.high):
            raise ValueError(f"high is {self.high}, but must be {len(self.low)} numbers, like low")
        if not np.all(_to_float32(self.low) < _to_float32(self.high)):
            raise ValueError(f"high is {self.high}, but must be above low, {self.low}, in each action (as float32)")
        for name in ("observation_size", "max_steps"):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name)))

    @property
    def action_size(self) -> int:
        """The number of actions, A."""
        return len(self.low)


def _to_float32(numbers: tuple[float, ...]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(numbers, np.float32)


def _whole_number(name: str, value: Any) -> int:
    """Returns a whole number >= 1, of any type of number."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value:
        raise ValueError(f"{name} is {value!r}, but must be a whole number >= 1")
    return number
