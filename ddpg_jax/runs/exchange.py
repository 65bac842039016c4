"""What the processes of a run exchange while they train: after each chunk, and after each evaluation."""

from typing import NamedTuple

import numpy as np

from ddpg_jax.results.history import Episodes


class AfterChunk(NamedTuple):
    """What a process sends to the others after a chunk."""

    stop: bool
    """It was asked to stop."""
    save: bool
    """A checkpoint is due; that of the first process counts."""
    length: int
    """The length of the next chunk that suits it; the shortest counts."""
    diverged: dict[int, int]
    """Agents that it has not reported before, with the environment step."""
    ended: Episodes | None
    """Training episodes, where they are shown."""


class AfterEvaluation(NamedTuple):
    """What a process sends to the others after an evaluation."""

    returns: np.ndarray
    """Greedy returns of its agents that have not diverged."""
    agents: np.ndarray
    """The numbers of all its agents."""
    rows: list[str]
    """Their rows of `metrics.csv`."""
    diverged: dict[int, int]
    """Agents that it has not reported before, with the environment step."""
    write_tables: bool
    """The tables are due; the first process decides."""
