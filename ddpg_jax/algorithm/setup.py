"""Everything from which the training program of an agent is compiled."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from ddpg_jax.algorithm import moments, replay
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.replay import Reader, Sampler
from ddpg_jax.algorithm.types import AgentState


@dataclass(frozen=True)
class Exploration:
    """How an agent gathers experience, apart from the noise's coefficients."""

    noise_unit: tuple[float, ...]
    """The change of each of the A actions by a noise of 1, in the environment's units."""
    noise_reset: bool = False
    """Start the noise anew in every episode (line 4), instead of letting it run on."""
    clip_stored_action: bool = True
    """Store the action as executed, instead of before it was clipped to the bounds."""
    max_steps: int | None = None
    """A time limit below the environment's own, or None."""
    time_limit_terminal: bool = False
    """Store a time limit as a terminal state."""
    random_steps: int = 0
    """Steps at the beginning of training whose actions are uniformly random within the bounds."""
    observe: Callable[[AgentState, jax.Array], AgentState] = moments.ignore
    """Takes note of an observation [O] before the agent acts on it (`moments.observe`)."""


@dataclass(frozen=True)
class Setup:
    """Everything from which a training program is compiled. Hashable: equal setups share one compilation."""

    environment: Environment
    """The task."""
    algorithm: Algorithm
    """The networks, the losses and the form of the update."""
    exploration: Exploration
    """How experience is gathered."""
    sampler: Sampler = replay.with_replacement
    """Chooses the rows of the replay at which a minibatch begins."""
    reader: Reader = replay.read
    """Reads the transitions that begin at those rows."""
    hold: Callable[[jax.Array], jax.Array] = replay.as_it_lies
    """Holds the replay's rows [C, F], after a write, to an order in the device's memory; it changes no number."""
    batch_size: int = 64
    """B."""
    replay_capacity: int = 50_000
    """Transitions that the replay holds before it overwrites the oldest."""
    first_update: int = 1
    """The step, counted from 1, after which the first update may happen."""
    train_every: int = 1
    """Steps between updates: those numbered 1, 1 + train_every, … train."""
    updates_per_train: int = 1
    """Updates each time."""
    average_actor: bool = False
    """Evaluate and export an average of the actor's weights (`averaging.py`)."""
    num_envs: int = 1
    """E, the environments that the agent steps side by side; each step of the loop adds a transition of each."""

    @property
    def updates_once_per_step(self) -> bool:
        """Whether every step has exactly one update, once learning has begun."""
        return self.train_every == self.updates_per_train == 1
