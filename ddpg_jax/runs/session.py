"""What the host needs to know of a run while it trains: its parts, its files, its clock, whom it reports to."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.training import Setup
from ddpg_jax.algorithm.types import AgentState, Hyperparameters
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_hyperparameters
from ddpg_jax.population.programs import Placement
from ddpg_jax.processes.team import ALONE, Team
from ddpg_jax.results.history import Episodes, History
from ddpg_jax.runs.checkpoint import Checkpoints
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.logs import Log
from ddpg_jax.runs.recording import Recorder
from ddpg_jax.runs.sweep import Point

MAX_CHUNK = 250
"""Environment steps of an agent between two returns to the host, at most."""

FINAL_EPISODES = 512
"""Greedy episodes of an agent in the last evaluation, from start states common to all agents."""

NUM_SNAPSHOTS = 5
"""Moments of training, evenly spaced from its beginning to its end, at which all parameters are kept."""


class Reporter(Protocol):
    """Who is told how a run goes; see `progress.py`."""

    def advanced(self, agent_steps: int) -> None:
        """So many environment steps, summed over the agents, have been trained since the last call."""

    def ended(self, episodes: Episodes) -> None:
        """Training episodes that ended in the last chunk."""

    def evaluated(self, returns: np.ndarray) -> None:
        """Mean greedy returns of the agents that are sound."""

    def diverged(self, agent: int, env_steps: int) -> None:
        """An agent's numbers were no longer finite at this step."""


@dataclass
class Stopwatch:
    """Seconds spent, by what they were spent on."""

    compiling: float = 0.0
    training: float = 0.0
    evaluating: float = 0.0
    saving: float = 0.0
    earlier: float = 0.0
    """Spent by the processes that this one continues."""
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Adds the seconds spent inside to one of the counts."""
        start = time.perf_counter()
        yield
        setattr(self, what, getattr(self, what) + time.perf_counter() - start)

    @property
    def wall(self) -> float:
        """Seconds since the start."""
        return self.earlier + time.perf_counter() - self.started

    def counts(self) -> dict[str, float]:
        """What `restore` needs to count on."""
        names = ("compiling", "training", "evaluating", "saving")
        return {name: getattr(self, name) for name in names} | {"earlier": self.wall}

    def restore(self, counts: dict[str, float]) -> None:
        """Counts on from what an earlier process counted."""
        for name, seconds in counts.items():
            setattr(self, name, getattr(self, name) + seconds)


@dataclass(frozen=True)
class Part:
    """Agents whose networks and updates have the same shapes: one set of compiled programs trains them."""

    name: str
    """Of its folder of weights; empty if it is the only part."""
    agents: range
    setup: Setup
    placement: Placement


@dataclass(frozen=True)
class Session:
    """What a run needs to know."""

    config: Config
    """What all agents share: the task, its length and its evaluations."""
    points: tuple[Point, ...]
    """The configurations: agent a is seed a mod num_seeds of point a div num_seeds."""
    num_seeds: int
    parts: tuple[Part, ...]
    seed: int
    waves: tuple[range, ...]
    """The agents' numbers, in the portions that fit into memory together, each within one part."""
    folder: RunFolder
    checkpoints: Checkpoints
    reporter: Reporter
    stopwatch: Stopwatch
    recorder: Recorder | None = None
    logs: tuple[Log, ...] = ()
    stop_requested: Callable[[], bool] = lambda: False
    """Asked after each chunk."""
    team: Team = ALONE
    """The processes that carry out the run, each on agents of its own; the first reports and writes the tables."""
    verbose: bool = False
    """Whether the reporter is to see the training episodes of all processes."""

    @property
    def num_agents(self) -> int:
        """Agents in all."""
        return len(self.points) * self.num_seeds

    @property
    def environment(self) -> Environment:
        """The task of all agents."""
        return self.parts[0].setup.environment

    def config_of(self, agent: int) -> Config:
        """An agent's configuration."""
        return self.points[agent // self.num_seeds].config

    def part_of(self, agents: range) -> int:
        """The index of the part that some agents belong to."""
        return next(i for i, part in enumerate(self.parts) if agents.start in part.agents)

    def write_tables(self, histories: list[History]) -> None:
        """`metrics.csv` and `episodes.csv` of all agents so far."""
        self.folder.write_tables(histories, self.num_seeds if len(self.points) > 1 else None)


@dataclass(frozen=True)
class WaveResult:
    """What training a wave of agents has given."""

    history: History
    final_return: np.ndarray
    """[N] means over `FINAL_EPISODES`."""
    final_shortfall: np.ndarray
    """[N] mean distances below the optimum from the same start states; NaN where the optimum is not known."""
    selection_return: np.ndarray
    """[N] means over as many episodes from other start states, by which the best agent is chosen."""


def hyperparameters(session: Session, agents: range) -> Hyperparameters:
    """The scalars of agents, [N] each."""
    values = {config: make_hyperparameters(config) for config in map(session.config_of, agents)}
    trees = [values[session.config_of(agent)] for agent in agents]
    return jax.tree.map(lambda *leaves: np.asarray(leaves, np.float32), *trees)


def stops(config: Config) -> tuple[list[int], list[int]]:
    """The environment steps at which the agents are evaluated, and those at which their parameters are kept."""
    evaluations = [*range(config.eval_every, config.total_steps, config.eval_every), config.total_steps]
    snapshots = sorted({-(-config.total_steps * i // (NUM_SNAPSHOTS - 1)) for i in range(NUM_SNAPSHOTS)})
    return evaluations, snapshots


def acting(agent: AgentState) -> dict[str, Any]:
    """The actor's variables: parameters, and normalisation statistics where there are any."""
    return {"params": agent.actor_params, "batch_stats": agent.actor_stats}
