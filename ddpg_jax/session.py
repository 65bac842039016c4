"""A run from the host's side: chunks of training, evaluations between them, and what they leave in the run folder."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from ddpg_jax.assembly import make_hyperparameters
from ddpg_jax.checkpoint import Checkpoints, Saved, restore_state, state_arrays
from ddpg_jax.config import Config
from ddpg_jax.environment import Environment
from ddpg_jax.history import Episodes, History
from ddpg_jax.logs import Log, evaluation
from ddpg_jax.population import Placement, Population, Programs, agent_keys
from ddpg_jax.recording import Recorder
from ddpg_jax.run_folder import RunFolder
from ddpg_jax.sweep import Point
from ddpg_jax.training import Setup
from ddpg_jax.types import Hyperparameters

MAX_CHUNK = 250
"""Environment steps of an agent between two returns to the host, at most."""

FIRST_CHUNK = 32
"""Length of the first chunk, before the pace is known."""

CHUNK_SECONDS = 5.0
"""Chunks are shortened towards this, so that many agents, too, can be stopped. It does not touch the results."""

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

    def write_tables(self, histories: list[History], *, can_wait: bool = False) -> None:
        """`metrics.csv` and `episodes.csv` of all agents so far."""
        self.folder.write_tables(histories, self.num_seeds if len(self.points) > 1 else None, can_wait=can_wait)


@dataclass(frozen=True)
class WaveResult:
    """What training a wave of agents has given."""

    history: History
    final_returns: np.ndarray
    """[N, FINAL_EPISODES]."""
    selection_returns: np.ndarray
    """[N] means over as many episodes from other start states, by which the best agent is chosen."""


class Stopped(Exception):  # noqa: N818  (it is not an error)
    """The run was asked to stop, and has saved what it carries.

    Attributes:
        env_steps: of the agents that are training.
    """

    def __init__(self, env_steps: int) -> None:
        super().__init__(f"stopped at step {env_steps:,}")
        self.env_steps = env_steps


def train(session: Session, programs: Sequence[Programs], saved: Saved | None = None) -> list[WaveResult]:
    """Trains all agents, one wave after another, and writes the files of the run as it goes.

    Args:
        session: the run.
        programs: compiled for the setups of its parts.
        saved: the checkpoint to continue from, or None to begin.

    Raises:
        Stopped: when it was asked to stop.
    """
    results = [WaveResult(*finished) for finished in saved.finished] if saved else []
    session.reporter.advanced(sum(result.history.env_steps * len(result.history.agents) for result in results))
    for agents in session.waves[len(results) :]:
        part = session.part_of(agents)
        population = _new_population(session, programs[part], agents)
        history = _new_history(session, agents)
        if saved is not None:
            history = saved.history
            for block in range(len(population.states)):  # one at a time, because they may fill half of the memory
                state = restore_state(saved.states.pop(0), population.states[block])
                population.states[block] = jax.device_put(state, programs[part].states)
            session.reporter.advanced(history.env_steps * len(agents))
            saved = None
        results.append(_Wave(session, session.parts[part], population, history, results).train())
    return results


def _new_population(session: Session, programs: Programs, agents: range) -> Population:
    """New agents. The key folds in the seed's number alone: the points of a sweep share their random numbers."""
    keys = agent_keys(session.seed, np.asarray(agents) % session.num_seeds)
    return Population(programs, keys, hyperparameters(session, agents))


def hyperparameters(session: Session, agents: range) -> Hyperparameters:
    """The scalars of agents, [N] each."""
    values = {config: make_hyperparameters(config) for config in map(session.config_of, agents)}
    trees = [values[session.config_of(agent)] for agent in agents]
    return jax.tree.map(lambda *leaves: np.asarray(leaves, np.float32), *trees)


def _new_history(session: Session, agents: range) -> History:
    configs = [session.config_of(agent) for agent in agents]
    unit = session.parts[session.part_of(agents)].setup.exploration.noise_unit[0]
    return History(
        configs[0],
        len(agents),
        first_agent=agents.start,
        noise_scale=unit * np.array([config.noise_scale for config in configs]),
        noise_decay=np.array([config.noise_decay for config in configs]),
    )


def stops(config: Config) -> tuple[list[int], list[int]]:
    """The environment steps at which the agents are evaluated, and those at which their parameters are kept."""
    evaluations = [*range(config.eval_every, config.total_steps, config.eval_every), config.total_steps]
    snapshots = sorted({-(-config.total_steps * i // (NUM_SNAPSHOTS - 1)) for i in range(NUM_SNAPSHOTS)})
    return evaluations, snapshots


class _Wave:
    """The agents that are in memory together."""

    def __init__(
        self, session: Session, part: Part, population: Population, history: History, finished: list[WaveResult]
    ) -> None:
        self.session, self.part, self.population = session, part, population
        self.history, self.finished = history, finished
        self.starts = session.environment.evaluation_starts(session.config.eval_episodes)
        self.chunk = FIRST_CHUNK

    def train(self) -> WaveResult:
        """From where the agents stand to the end of their training."""
        evaluations, snapshots = stops(self.session.config)
        for stop in sorted({*evaluations, *snapshots}):
            if stop < self.history.env_steps:
                continue
            self._train_until(stop)
            if stop == self.session.config.total_steps:
                self._save()
            if stop in evaluations:
                self._evaluate()
            if stop in snapshots:
                self.session.folder.write_snapshot(
                    stop, self.part.name, self._first_in_part(), _parameters(self.population)
                )
        with self.session.stopwatch.time("evaluating"):
            final_returns = self._evaluate_finally(self.session.environment.evaluation_starts(FINAL_EPISODES))
            selection = self._evaluate_finally(self.session.environment.selection_starts(FINAL_EPISODES))
        self._note_unsound(final_returns)
        self.session.folder.write_policy_weights(self.part.name, self._first_in_part(), acting(self.population))
        return WaveResult(self.history, final_returns, selection.mean(axis=1, dtype=np.float64))

    def _first_in_part(self) -> int:
        return int(self.history.agents[0]) - self.part.agents.start

    def _train_until(self, stop: int) -> None:
        """Chunks up to the given step of every agent, and checkpoints when they are due."""
        session, history = self.session, self.history
        while history.env_steps < stop:
            length = min(self.chunk, self.part.setup.replay_capacity, stop - history.env_steps)
            before = time.perf_counter()
            frozen = _Frozen(self.population, history.frozen())
            with session.stopwatch.time("training"):
                log = self.population.train(length, partial(_report, session.reporter, length))
            frozen.put_back()
            known = set(history.diverged)
            pace = length / (time.perf_counter() - before)
            self.chunk = max(1, min(MAX_CHUNK, 2 * self.chunk, int(pace * CHUNK_SECONDS)))
            ended = history.add_chunk(log)
            session.reporter.ended(ended)
            if session.recorder is not None:
                session.recorder.record(ended, self.population, int(history.agents[0]))
            self._report_diverged(known)
            stopping = session.stop_requested()
            if stopping or session.checkpoints.due():
                self._save()
            if stopping:
                raise Stopped(history.env_steps)

    def _save(self) -> None:
        """Saves the state right behind a chunk, before any evaluation at this step: a run that goes on for longer
        may not want one here.
        """
        finished = [(result.history, result.final_returns, result.selection_returns) for result in self.finished]
        with self.session.stopwatch.time("saving"):
            counts = self.session.stopwatch.counts()
            states = [state_arrays(state) for state in self.population.states]
            self.session.checkpoints.save(Saved(finished, self.history, states, counts))

    def _evaluate(self) -> None:
        session, history = self.session, self.history
        with session.stopwatch.time("evaluating"):
            returns = self.population.evaluate(self.starts).mean(axis=1, dtype=np.float64)
        known = set(history.diverged)
        history.add_evaluation(returns)
        self._report_diverged(known)
        session.reporter.evaluated(returns[history.sound()])
        for log in session.logs:
            log.write(history.env_steps, evaluation(history))
        session.write_tables([*(result.history for result in self.finished), history], can_wait=True)

    def _evaluate_finally(self, starts: Any) -> np.ndarray:
        """Greedy returns [N, FINAL_EPISODES], by the program that evaluates `eval_episodes` start states at a time."""
        returns = []
        for first in range(0, FINAL_EPISODES, self.session.config.eval_episodes):
            if self.session.stop_requested():
                raise Stopped(self.history.env_steps)  # all that was trained has been saved
            index = np.arange(first, first + self.session.config.eval_episodes).clip(max=FINAL_EPISODES - 1)
            returns.append(self.population.evaluate(jax.tree.map(partial(_take, index), starts)))
        return np.concatenate(returns, axis=1)[:, :FINAL_EPISODES]

    def _note_unsound(self, final_returns: np.ndarray) -> None:
        """The agents whose return or parameters are not finite at the end, though their losses were."""
        finite = np.isfinite(final_returns).all(axis=1)
        for leaf in jax.tree.leaves(_parameters(self.population)):
            finite &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
        known = set(self.history.diverged)
        for agent in self.history.agents[~finite]:
            self.history.diverged.setdefault(int(agent), self.history.env_steps)
        self._report_diverged(known)

    def _report_diverged(self, known: set[int]) -> None:
        for agent in sorted(set(self.history.diverged) - known):
            self.session.reporter.diverged(agent, self.history.diverged[agent])


class _Frozen:
    """What some agents have learned, kept aside while the others go on."""

    def __init__(self, population: Population, agents: np.ndarray) -> None:
        size = population.states[0].agent.step.shape[0]
        self._population, self._places = population, [divmod(int(agent), size) for agent in agents]
        self._kept = [
            jax.tree.map(lambda leaf, i=index: np.array(leaf[i]), population.states[block].agent)
            for block, index in self._places
        ]

    def put_back(self) -> None:
        """Undoes what has happened to them since."""
        for (block, index), kept in zip(self._places, self._kept, strict=True):
            state = self._population.states[block]
            agent = jax.tree.map(partial(_with_entry, index), state.agent, kept)
            self._population.states[block] = state._replace(agent=agent)


def _with_entry(index: int, array: jax.Array, entry: np.ndarray) -> jax.Array:
    """The array [n, ...] with one agent's entry replaced, where it lies."""
    changed = np.array(array)
    changed[index] = entry
    return jax.device_put(changed, array.sharding)


def _report(reporter: Reporter, length: int, num_agents: int) -> None:
    reporter.advanced(num_agents * length)


def _take(index: np.ndarray, x: jax.Array) -> jax.Array:
    return x[index]


def _parameters(population: Population) -> dict[str, Any]:
    """Parameters of actor and critic, with normalisation statistics where there are any, [N, ...]."""
    return population.agents(
        lambda state: {
            "actor": {"params": state.actor_params, "batch_stats": state.actor_stats},
            "critic": {"params": state.critic_params, "batch_stats": state.critic_stats},
        }
    )


def acting(population: Population) -> dict[str, Any]:
    """The actors' variables [N, ...]: parameters, and normalisation statistics where there are any."""
    return population.agents(lambda state: {"params": state.actor_params, "batch_stats": state.actor_stats})
