"""What the processes of a run exchange while they train: after each chunk, and after each evaluation."""

from typing import NamedTuple

import numpy as np

from ddpg_jax.results.history import Episodes, Metrics
from ddpg_jax.runs.divergence import Divergence


class AfterChunk(NamedTuple):
    """What a process sends to the others after a chunk."""

    stop: bool
    """It was asked to stop."""
    save: bool
    """A checkpoint is due; that of the first process counts."""
    length: int
    """The length of the next chunk that suits it; the shortest counts."""
    diverged: dict[int, Divergence]
    """Agents that it has not reported before."""
    ended: Episodes | None
    """Training episodes, where they are shown."""


class AfterEvaluation(NamedTuple):
    """What a process sends to the others after an evaluation."""

    agents: np.ndarray
    """[n] the numbers of its agents."""
    metrics: Metrics
    """The row of `metrics.csv` of each of them, columns [n]."""
    diverged: dict[int, Divergence]
    """Agents that it has not reported before."""
    write_tables: bool
    """The tables are due; the first process decides."""
