"""The course of training: chunks of steps, evaluations and snapshots, one after another.

The command and `ddpg_jax.train` both iterate over `course`; what they do between two events is theirs.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config import Config
from ddpg_jax.population.blocks import Population
from ddpg_jax.results.history import Episodes, History
from ddpg_jax.runs.divergence import learning_suspended
from ddpg_jax.runs.stopwatch import Stopwatch

MAX_CHUNK = 250
"""The largest number of steps of the loop between two returns to the host."""

FIRST_CHUNK = 32
"""Length of the first chunk, before the pace is known."""

CHUNK_SECONDS = 10.0
"""Chunks are shortened towards this, so that a run of many agents can be stopped. It does not affect the results."""

NUM_SNAPSHOTS = 5
"""Snapshots of all parameters, evenly spaced from the beginning of training to its end."""


class Chunk(NamedTuple):
    """All agents have trained for some steps."""

    num_steps: int
    """Environment steps of each agent."""
    ended: Episodes
    """The training episodes that ended in these steps."""


class Evaluation(NamedTuple):
    """All agents have been evaluated, and the history holds the result."""

    returns: np.ndarray
    """[N] mean greedy returns."""


class SnapshotDue(NamedTuple):
    """It is time to keep the parameters."""

    env_steps: int


@dataclass
class Pace:
    """How long the next chunk is. Between two chunks `length` may be changed."""

    length: int = field(default_factory=lambda: FIRST_CHUNK)

    def measured(self, num_steps: int, seconds: float) -> None:
        """Adapts the length to the seconds of the last chunk; it doubles at most."""
        self.length = max(1, min(MAX_CHUNK, 2 * self.length, int(num_steps / seconds * CHUNK_SECONDS)))


def evaluation_steps(config: Config) -> list[int]:
    """Returns the environment steps at which the agents are evaluated."""
    return [*range(config.eval_every, config.total_steps, config.eval_every), config.total_steps]


def snapshot_steps(config: Config) -> list[int]:
    """Returns the environment steps at which snapshots are taken."""
    loop_steps = config.total_steps // config.num_envs
    return sorted({config.num_envs * -(-loop_steps * i // (NUM_SNAPSHOTS - 1)) for i in range(NUM_SNAPSHOTS)})


def course(
    population: Population,
    history: History,
    starts: Any,
    *,
    max_chunk: int = MAX_CHUNK,
    pace: Pace | None = None,
    stopwatch: Stopwatch | None = None,
    on_progress: Callable[[int], None] = lambda agent_steps: None,
) -> Iterator[Chunk | Evaluation | SnapshotDue]:
    """Trains agents from where they are to the end of their configuration.

    Args:
        population: N agents.
        history: theirs; chunks and evaluations are added to it.
        starts: the start states of evaluations.
        max_chunk: an upper limit on the environment steps of an agent in a chunk.
        pace: the length of the next chunk, which the caller may change.
        stopwatch: is given the seconds.
        on_progress: called with the environment steps of a block, summed over its agents, when it has advanced.

    Yields:
        What has just happened. The agents' states stay as they are until the next event is asked for.
    """
    num_envs = history.config.num_envs
    pace, stopwatch = pace or Pace(), stopwatch or Stopwatch()
    evaluations, snapshots = evaluation_steps(history.config), snapshot_steps(history.config)
    for stop in sorted({*evaluations, *snapshots}):
        if stop < history.env_steps:
            continue
        while history.env_steps < stop:
            num_steps = min(pace.length, max_chunk // num_envs, (stop - history.env_steps) // num_envs)
            start = time.perf_counter()
            with learning_suspended(population, history.stopped_positions()), stopwatch.time("training"):
                log = population.advance(num_steps, lambda agent_steps: on_progress(num_envs * agent_steps))
            pace.measured(num_steps, time.perf_counter() - start)
            yield Chunk(num_envs * num_steps, history.add_chunk(log))
        if stop in evaluations:
            with stopwatch.time("evaluating"):
                returns = population.evaluate(starts).returns.mean(axis=1, dtype=np.float64)
            history.add_evaluation(returns)
            yield Evaluation(returns)
        if stop in snapshots:
            yield SnapshotDue(stop)
