"""A run that can begin, or is going on: everything has been checked, and its folder is locked."""

from dataclasses import dataclass

import jax
import numpy as np
from rich.console import Console

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.types import Hyperparameters
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_hyperparameters
from ddpg_jax.processes.signals import Interruption
from ddpg_jax.processes.team import Team
from ddpg_jax.results.history import History
from ddpg_jax.runs.checkpoint import Checkpoint, Checkpoints
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.logs import Log
from ddpg_jax.runs.options import Options
from ddpg_jax.runs.plan import Plan
from ddpg_jax.runs.progress import Silent
from ddpg_jax.runs.recording import Recorder
from ddpg_jax.runs.stopwatch import Stopwatch


@dataclass(frozen=True)
class Session:
    """What the host needs to know of a run."""

    options: Options
    plan: Plan
    waves: tuple[range, ...]
    """The agents' numbers, divided into those that are in memory together; each wave lies within one part."""
    folder: RunFolder
    checkpoints: Checkpoints
    checkpoint: Checkpoint | None
    """The checkpoint to continue from."""
    team: Team
    """The processes of the run, each with agents of its own; the first prints, and writes the tables."""
    interruption: Interruption
    console: Console
    progress: Silent
    """Shows how the run goes."""
    recorder: Recorder | None
    """Records training episodes."""
    stopwatch: Stopwatch
    logs: tuple[Log, ...] = ()
    """Where evaluations are logged in addition to the tables."""

    @property
    def config(self) -> Config:
        """What all agents share: the task, its length and its evaluations."""
        return self.options.config

    @property
    def environment(self) -> Environment:
        """The task of all agents."""
        return self.plan.environment

    @property
    def is_sweep(self) -> bool:
        """Whether there is more than one point."""
        return len(self.plan.points) > 1

    def config_of(self, agent: int) -> Config:
        """Returns an agent's configuration."""
        return self.plan.points[agent // self.options.seeds].config

    def hyperparameters(self, agents: range) -> Hyperparameters:
        """Returns the scalars of some agents, arrays [N]."""
        values = {config: make_hyperparameters(config) for config in map(self.config_of, agents)}
        trees = [values[self.config_of(agent)] for agent in agents]
        return jax.tree.map(lambda *leaves: np.asarray(leaves, np.float32), *trees)

    def write_tables(self, histories: list[History]) -> None:
        """Writes `metrics.csv` and `episodes.csv` of all agents so far."""
        self.folder.write_tables(histories, self.options.seeds if self.is_sweep else None)
