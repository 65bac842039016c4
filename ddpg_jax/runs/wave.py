"""The course of a wave of agents, from the host's side: chunks of training, and what happens between them."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpg_jax.algorithm.types import TrainState
from ddpg_jax.population.blocks import Population, agent_keys, on_host, spread
from ddpg_jax.population.programs import Programs
from ddpg_jax.results.history import Episodes, History
from ddpg_jax.results.statistics import shortfall
from ddpg_jax.runs.checkpoint import Checkpoint, Saved
from ddpg_jax.runs.logs import evaluation
from ddpg_jax.runs.policy import save_weights
from ddpg_jax.runs.session import (
    FINAL_EPISODES,
    MAX_CHUNK,
    Reporter,
    Session,
    WaveResult,
    acting,
    hyperparameters,
    stops,
)
from ddpg_jax.runs.state_arrays import restore_state, state_arrays

FIRST_CHUNK = 32
"""Length of the first chunk, before the pace is known."""

CHUNK_SECONDS = 10.0
"""Chunks are shortened towards this, so that many agents, too, can be stopped. It does not touch the results."""


class Stopped(Exception):  # noqa: N818  (it is not an error)
    """The run was asked to stop, and has saved what it carries.

    Attributes:
        env_steps: of the agents that are training.
    """

    def __init__(self, env_steps: int) -> None:
        super().__init__(f"stopped at step {env_steps:,}")
        self.env_steps = env_steps


def train(session: Session, programs: Sequence[Programs], checkpoint: Checkpoint | None = None) -> list[WaveResult]:
    """Trains all agents, one wave after another, and writes the files of the run as it goes.

    Args:
        session: the run.
        programs: compiled for the setups of its parts.
        checkpoint: to continue from, or None to begin.

    Returns:
        Of each wave; only in the first process of the run.

    Raises:
        Stopped: when it was asked to stop.
    """
    results = [WaveResult(*finished) for finished in checkpoint.saved.finished] if checkpoint else []
    session.reporter.advanced(sum(result.history.env_steps * len(result.history.agents) for result in results))
    for agents in session.waves[len(results) :]:
        share = session.team.share(agents)
        population = _new_population(session, programs[session.part_of(agents)], agents)
        history = _new_history(session, agents, share)
        if checkpoint is not None:
            filled = share or agents[-1:]
            history = checkpoint.history(filled).of(share)
            population.restore(partial(_saved_states, checkpoint, filled))
            session.reporter.advanced(history.env_steps * len(agents))
            checkpoint = None
        results += _Wave(session, agents, population, history, results).train()
    return results


def _saved_states(checkpoint: Checkpoint, agents: range, positions: np.ndarray, like: TrainState) -> TrainState:
    """The states of the agents at these positions; copies of the last fill up."""
    first, last = (min(int(position), len(agents) - 1) for position in positions[[0, -1]])
    arrays = checkpoint.states(agents[first : last + 1])
    index = positions.clip(max=last) - first
    return restore_state({name: array[index] if array.ndim else array for name, array in arrays.items()}, like)


def _new_population(session: Session, programs: Programs, agents: range) -> Population:
    """New agents of a wave: those that this process trains.

    The key folds in the seed's number alone: the points of a sweep share their random numbers. All processes have the
    same number of blocks, so that they call the same programs; one without agents trains a copy that does not count.
    """
    share = session.team.share(agents)
    filled = share or agents[-1:]
    return Population(
        programs,
        agent_keys(session.seed, np.asarray(filled) % session.num_seeds),
        hyperparameters(session, filled),
        num_agents=len(share),
        num_blocks=programs.placement.num_blocks(len(agents)),
    )


def _new_history(session: Session, wave: range, share: range) -> History:
    configs = [session.config_of(agent) for agent in share]
    unit = session.parts[session.part_of(wave)].setup.exploration.noise_unit[0]
    return History(
        session.config_of(wave.start),
        len(share),
        first_agent=share.start,
        noise_scale=unit * np.array([config.noise_scale for config in configs]),
        noise_decay=np.array([config.noise_decay for config in configs]),
    )


class _News(NamedTuple):
    """What a process tells the others after each chunk."""

    stop: bool
    save: bool
    chunk: int
    """The length that suits it for the next one."""
    diverged: dict[int, int]
    """Agents that it had not told of, with the step."""
    ended: Episodes | None


class _Measured(NamedTuple):
    """What a process tells the others after each evaluation."""

    returns: np.ndarray
    """Of its sound agents."""
    agents: np.ndarray
    rows: list[str]
    """Of all its agents, in `metrics.csv`."""
    diverged: dict[int, int]
    write_tables: bool


class _Wave:
    """The agents that are in memory together, as far as this process trains them."""

    def __init__(
        self, session: Session, agents: range, population: Population, history: History, finished: list[WaveResult]
    ) -> None:
        self.session, self.agents, self.population = session, agents, population
        self.history, self.finished = history, finished
        self.part = session.parts[session.part_of(agents)]
        self.share = session.team.share(agents)
        self.starts = session.environment.evaluation_starts(session.config.eval_episodes)
        self.chunk = FIRST_CHUNK
        self.told: set[int] = set(history.diverged)

    def train(self) -> list[WaveResult]:
        """From where the agents stand to the end of their training; the result is known to the first process."""
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
                self._write_weights(Path("snapshots") / f"{stop:09d}", _parameters)
        return self._finish()

    def _finish(self) -> list[WaveResult]:
        environment = self.session.environment
        with self.session.stopwatch.time("evaluating"):
            returns = self._evaluate_finally(environment.evaluation_starts(FINAL_EPISODES))
            selection = self._evaluate_finally(environment.selection_starts(FINAL_EPISODES))
        self._note_unsound(returns)
        self._write_weights(Path("policy"), _acting)
        optimum = environment.optimal_returns
        best = np.full(FINAL_EPISODES, np.nan) if optimum is None else np.asarray(optimum[:FINAL_EPISODES])
        final, selected = (values.mean(axis=1, dtype=np.float64) for values in (returns, selection))
        result = WaveResult(self.history, final, shortfall(returns, best), selected)
        return _joined(self.session.team.to_first(result))

    def _write_weights(self, name: Path, take: Callable[[TrainState], Any]) -> None:
        """Writes what is taken of the agents' states into a folder of the run, a file per portion of agents."""
        folder = self.session.folder.path / name / self.part.name
        first = self.share.start - self.part.agents.start
        for positions, weights in self.population.portions(take):
            save_weights(folder, first + positions.start, weights)

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
            pace = length / (time.perf_counter() - before)
            ended = history.add_chunk(log)
            if session.recorder is not None:
                session.recorder.record(ended, self.population, self.share.start)
            chunk = max(1, min(MAX_CHUNK, 2 * self.chunk, int(pace * CHUNK_SECONDS)))
            shown = ended if session.verbose else None
            news = session.team.gather(
                _News(session.stop_requested(), session.checkpoints.due(), chunk, self._newly_diverged(), shown)
            )
            self._report(news, length)
            self.chunk = min(each.chunk for each in news)
            stopping = any(each.stop for each in news)
            if stopping or news[0].save:
                self._save()
            if stopping:
                raise Stopped(history.env_steps)

    def _report(self, news: list[_News], length: int) -> None:
        reporter = self.session.reporter
        reporter.advanced((len(self.agents) - len(self.share)) * length)  # by the others
        for each in news:
            if each.ended is not None:
                reporter.ended(each.ended)
            self._report_diverged(each.diverged)

    def _save(self) -> None:
        """Saves the state right behind a chunk, before any evaluation at this step: a run that goes on for longer
        may not want one here.
        """
        finished = [
            (result.history, result.final_return, result.final_shortfall, result.selection_return)
            for result in self.finished
        ]
        with self.session.stopwatch.time("saving"):
            counts = self.session.stopwatch.counts()
            states = (
                (self.share[positions.start : positions.stop], arrays)
                for positions, arrays in self.population.portions(state_arrays)
            )
            saved = Saved(finished, self.agents, self.history.env_steps, counts)
            self.session.checkpoints.save(saved, self.history, states)

    def _evaluate(self) -> None:
        session, history = self.session, self.history
        with session.stopwatch.time("evaluating"):
            returns = self.population.evaluate(self.starts).mean(axis=1, dtype=np.float64)
        history.add_evaluation(returns)
        rows = history.last_rows()
        diverged = self._newly_diverged()
        measured = session.team.gather(
            _Measured(returns[history.sound()], history.agents, rows, diverged, session.folder.tables_due())
        )
        for each in measured:
            self._report_diverged(each.diverged)
        session.reporter.evaluated(np.concatenate([each.returns for each in measured]))
        for log in session.logs:
            agents = np.concatenate([each.agents for each in measured])
            log.write(history.env_steps, evaluation(agents, [row for each in measured for row in each.rows]))
        if measured[0].write_tables:
            histories = session.team.to_first(history)
            if histories:
                session.write_tables([*(result.history for result in self.finished), History.join(histories)])

    def _evaluate_finally(self, starts: Any) -> np.ndarray:
        """Greedy returns [N, FINAL_EPISODES], by the program that evaluates `eval_episodes` start states at a time."""
        returns = []
        for first in range(0, FINAL_EPISODES, self.session.config.eval_episodes):
            if any(self.session.team.gather(self.session.stop_requested())):
                raise Stopped(self.history.env_steps)  # all that was trained has been saved
            index = np.arange(first, first + self.session.config.eval_episodes).clip(max=FINAL_EPISODES - 1)
            returns.append(self.population.evaluate(jax.tree.map(partial(_take, index), starts)))
        return np.concatenate(returns, axis=1)[:, :FINAL_EPISODES]

    def _note_unsound(self, final_returns: np.ndarray) -> None:
        """The agents whose return or parameters are not finite at the end, though their losses were."""
        finite = np.isfinite(final_returns).all(axis=1)
        for positions, parameters in self.population.portions(_parameters):
            for leaf in jax.tree.leaves(parameters):
                finite[positions] &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
        for agent in self.history.agents[~finite]:
            self.history.diverged.setdefault(int(agent), self.history.env_steps)
        for diverged in self.session.team.gather(self._newly_diverged()):
            self._report_diverged(diverged)

    def _newly_diverged(self) -> dict[int, int]:
        new = {agent: step for agent, step in self.history.diverged.items() if agent not in self.told}
        self.told |= set(new)
        return new

    def _report_diverged(self, diverged: dict[int, int]) -> None:
        for agent in sorted(diverged):
            self.session.reporter.diverged(agent, diverged[agent])


def _joined(results: list[WaveResult]) -> list[WaveResult]:
    """What the processes have found out about the agents of a wave, as one; nothing of nothing."""
    if not results:
        return []
    measured = ([getattr(result, name) for result in results] for name in ("final_return", "final_shortfall"))
    final, below = map(np.concatenate, measured)
    selection = np.concatenate([result.selection_return for result in results])
    return [WaveResult(History.join([result.history for result in results]), final, below, selection)]


class _Frozen:
    """What some agents have learned, kept aside while the others go on."""

    def __init__(self, population: Population, positions: np.ndarray) -> None:
        self._population = population
        self._kept: dict[int, tuple[list[int], Any]] = {}
        for block, within in population.places(positions).items():
            agent = population.states[block].agent
            self._kept[block] = within, jax.tree.map(partial(_entries, within), agent)

    def put_back(self) -> None:
        """Undoes what has happened to them since."""
        for block, (within, kept) in self._kept.items():
            state = self._population.states[block]
            agent = jax.tree.map(partial(_with_entries, within), state.agent, kept)
            self._population.states[block] = state._replace(agent=agent)


def _entries(index: list[int], array: jax.Array) -> np.ndarray:
    return on_host(array)[index]


def _with_entries(index: list[int], array: jax.Array, entries: np.ndarray) -> jax.Array:
    """The array [n, ...] with some agents' entries replaced, where it lies."""
    changed = np.array(on_host(array))
    changed[index] = entries
    return spread(changed, array.sharding)


def _report(reporter: Reporter, length: int, num_agents: int) -> None:
    reporter.advanced(num_agents * length)


def _take(index: np.ndarray, x: jax.Array) -> jax.Array:
    return x[index]


def _parameters(state: TrainState) -> dict[str, Any]:
    """Parameters of actor and critic, with normalisation statistics where there are any, [n, ...]."""
    agent = state.agent
    parameters = {
        "actor": {"params": agent.actor_params, "batch_stats": agent.actor_stats},
        "critic": {"params": agent.critic_params, "batch_stats": agent.critic_stats},
    }
    return jax.tree.map(on_host, parameters)


def _acting(state: TrainState) -> dict[str, Any]:
    """The actor's variables [n, ...]: parameters, and normalisation statistics where there are any."""
    return jax.tree.map(on_host, acting(state.agent))
