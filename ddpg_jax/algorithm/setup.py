"""Everything from which the training program of an agent is compiled."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from ddpg_jax.algorithm import noise as noises
from ddpg_jax.algorithm import obs_normalization, replay
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.replay import Reader, Sampler
from ddpg_jax.algorithm.types import AgentState


@dataclass(frozen=True)
class Exploration:
    """How an agent gathers experience, apart from the noise's numbers."""

    noise_unit: tuple[float, ...]
    """The change of each of the A actions by a noise of 1, in the environment's units."""
    noise: noises.Noise = noises.AR1
    """The form of the noise; its numbers are `Hyperparameters.noise`."""
    noise_reset: bool = False
    """Start the noise anew in every episode (line 4), instead of continuing it."""
    clip_stored_action: bool = True
    """Store the action as executed, instead of before it was clipped to the bounds."""
    max_steps: int | None = None
    """A time limit below the environment's own; None: the environment's own."""
    time_limit_terminal: bool = False
    """Store a time limit as a terminal state."""
    random_steps: int = 0
    """Steps at the beginning of training whose actions are uniformly random within the bounds."""
    observe: Callable[[AgentState, jax.Array], AgentState] = obs_normalization.skip
    """(agent, observations [O], or [E, O] of E > 1 environments) -> the agent, before it acts
    (`obs_normalization.update`)."""


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
    batch_size: int = 64
    """B."""
    replay_capacity: int = 50_000
    """Transitions that the replay holds before it overwrites the oldest."""
    first_update: int = 1
    """The step of the loop, counted from 1, after which the first update may happen."""
    train_every: int = 1
    """Steps of the loop between updates: the agent trains at steps 1, 1 + train_every, …"""
    updates_per_train: int = 1
    """Updates each time that the agent trains."""
    ema: bool = False
    """Evaluate and export an average of the actor's weights (`ema.py`)."""
    num_envs: int = 1
    """E: environments that the agent steps side by side; each step of the loop adds one transition per environment."""

    def __post_init__(self) -> None:
        if self.replay_capacity % self.num_envs:
            raise ValueError(f"replay_capacity is {self.replay_capacity}, but must be a multiple of num_envs, "
                             f"{self.num_envs}")  # fmt: skip
        reader = getattr(self.reader, "reader", self.reader)  # that inside of `replay.Rescaled`
        if (num_envs := getattr(reader, "num_envs", self.num_envs)) != self.num_envs:
            raise ValueError(f"num_envs of the reader is {num_envs}, but must be that of the setup, {self.num_envs}")

    @property
    def updates_once_per_step(self) -> bool:
        """Whether every step has exactly one update, once learning has begun."""
        return self.train_every == self.updates_per_train == 1

    def num_updates(self, env_steps: int) -> int:
        """Returns the number of updates in the agent's first `env_steps` environment steps."""
        last = env_steps // self.num_envs
        trainings = -(-last // self.train_every) - -(-(self.first_update - 1) // self.train_every)
        return self.updates_per_train * max(0, trainings)


def with_parts(setup: Setup, **parts: Any) -> Setup:
    """Returns the setup with some parts replaced: fields of itself, of its algorithm or of its exploration, by name.

    For example `with_parts(setup, actor=my_actor, sampler=my_sampler, noise_reset=True)`. A name that is not that of a
    part raises a TypeError, which lists the parts.
    """
    known = [field.name for part in (setup, setup.algorithm, setup.exploration) for field in dataclasses.fields(part)]
    unknown = sorted(parts.keys() - set(known))
    if unknown:
        raise TypeError(f"{unknown[0]} is not a part of a setup; the parts are {', '.join(known)}")
    for nested in ("algorithm", "exploration"):
        part = parts.get(nested, getattr(setup, nested))
        own = {field.name: parts.pop(field.name) for field in dataclasses.fields(part) if field.name in parts}
        parts[nested] = dataclasses.replace(part, **own)
    return dataclasses.replace(setup, **parts)
