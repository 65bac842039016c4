"""A run from the host's side: chunks of training, evaluations between them, and what they leave in the run folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np

from ddpg_jax import statistics
from ddpg_jax.assembly import make_hyperparameters
from ddpg_jax.config import Config
from ddpg_jax.history import Episodes, History
from ddpg_jax.population import Population, Programs, agent_keys
from ddpg_jax.run_folder import RunFolder
from ddpg_jax.training import Setup

MAX_CHUNK = 250
"""Environment steps of an agent between two returns to the host, at most."""

FINAL_EPISODES = 512
"""Greedy episodes of an agent in the last evaluation, from start states common to all agents."""

SNAPSHOTS = 5
"""Moments of training, evenly spaced from its beginning to its end, at which all parameters are kept."""

LAST_EPISODES = 40
"""Training episodes in the mean that the Keras tutorial reports."""


class Reporter(Protocol):
    """Who is told how a run goes; see `progress.py`."""

    def advanced(self, agent_steps: int) -> None:
        """So many environment steps, summed over the agents, have been trained since the last call."""

    def ended(self, episodes: Episodes) -> None:
        """Training episodes that ended in the last chunk."""

    def evaluated(self, returns: np.ndarray) -> None:
        """Mean greedy returns of the agents."""


@dataclass
class Stopwatch:
    """Seconds spent, by what they were spent on."""

    compiling: float = 0.0
    training: float = 0.0
    evaluating: float = 0.0
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
        return time.perf_counter() - self.started


@dataclass(frozen=True)
class Session:
    """What a run needs to know."""

    config: Config
    setup: Setup
    seed: int
    num_agents: int
    waves: tuple[range, ...]
    """The agents' numbers, in the portions that fit into memory together."""
    folder: RunFolder
    reporter: Reporter
    stopwatch: Stopwatch


class WaveResult:
    """What training a wave of agents has given."""

    def __init__(self, history: History, final_returns: np.ndarray) -> None:
        self.history = history
        self.final_returns = final_returns
        """[N, FINAL_EPISODES]."""


def train(session: Session, programs: Programs) -> list[WaveResult]:
    """Trains all agents, one wave after another, and writes the files of the run as it goes."""
    results: list[WaveResult] = []
    for agents in session.waves:
        results.append(_train_wave(session, programs, agents, [result.history for result in results]))
    return results


def stops(config: Config) -> tuple[list[int], list[int]]:
    """The environment steps at which the agents are evaluated, and those at which their parameters are kept."""
    evaluations = [*range(config.eval_every, config.total_steps, config.eval_every), config.total_steps]
    snapshots = sorted({-(-config.total_steps * i // (SNAPSHOTS - 1)) for i in range(SNAPSHOTS)})
    return evaluations, snapshots


def _chunks(first: int, last: int) -> Iterator[int]:
    """The lengths of the chunks that lead from one step to another."""
    while first < last:
        length = min(MAX_CHUNK, last - first)
        yield length
        first += length


def _train_wave(session: Session, programs: Programs, agents: range, earlier: list[History]) -> WaveResult:
    config, environment, watch = session.config, session.setup.environment, session.stopwatch
    keys = agent_keys(session.seed, np.asarray(agents))
    hyperparameters = jax.tree.map(lambda x: np.full(len(agents), x, np.float32), make_hyperparameters(config))
    population = Population(programs, keys, hyperparameters)
    noise_unit = session.setup.exploration.noise_unit[0]
    history = History(config, len(agents), first_agent=agents.start, noise_unit=noise_unit)
    starts = environment.evaluation_starts(config.eval_episodes)
    evaluations, snapshots = stops(config)
    session.folder.write_snapshot(0, agents.start, _parameters(population))
    for stop in sorted({*evaluations, *snapshots} - {0}):
        _train_until(stop, population, history, session)
        if stop in evaluations:
            with watch.time("evaluating"):
                returns = population.evaluate(starts).mean(axis=1, dtype=np.float64)
            history.add_evaluation(returns)
            session.reporter.evaluated(returns[history.sound()])
            session.folder.write_tables([*earlier, history])
        if stop in snapshots:
            session.folder.write_snapshot(stop, agents.start, _parameters(population))
    with watch.time("evaluating"):
        final_returns = evaluate_finally(population, session.setup, config.eval_episodes)
    _note_unsound(history, final_returns)
    session.folder.write_policy_weights(agents.start, _acting(population))
    return WaveResult(history, final_returns)


def _train_until(stop: int, population: Population, history: History, session: Session) -> None:
    """Chunks up to the given step of every agent."""
    for length in _chunks(history.env_steps, stop):
        done = 0

        def after_block(num_agents: int, length: int = length) -> None:
            nonlocal done
            session.reporter.advanced((num_agents - done) * length)
            done = num_agents

        with session.stopwatch.time("training"):
            log = population.train(length, after_block)
        session.reporter.ended(history.add_chunk(log))


def evaluate_finally(population: Population, setup: Setup, num_starts: int) -> np.ndarray:
    """Greedy returns [N, FINAL_EPISODES], by the program that evaluates `num_starts` start states at a time."""
    states, observations = setup.environment.evaluation_starts(FINAL_EPISODES)
    returns = []
    for first in range(0, FINAL_EPISODES, num_starts):
        index = np.arange(first, first + num_starts).clip(max=FINAL_EPISODES - 1)
        returns.append(population.evaluate(jax.tree.map(lambda x, index=index: x[index], (states, observations))))
    return np.concatenate(returns, axis=1)[:, :FINAL_EPISODES]


def _note_unsound(history: History, final_returns: np.ndarray) -> None:
    for agent in np.flatnonzero(~np.isfinite(final_returns).all(axis=1)):
        history.diverged.setdefault(int(history.agents[agent]), history.env_steps)


def _parameters(population: Population) -> dict[str, Any]:
    """Parameters of actor and critic, with normalisation statistics where there are any, [N, ...]."""
    return population.agents(
        lambda state: {
            "actor": {"params": state.actor_params, "batch_stats": state.actor_stats},
            "critic": {"params": state.critic_params, "batch_stats": state.critic_stats},
        }
    )


def _acting(population: Population) -> dict[str, Any]:
    return population.agents(lambda state: {"params": state.actor_params, "batch_stats": state.actor_stats})


def summarize(session: Session, preset: str, results: list[WaveResult], device: str) -> dict[str, Any]:
    """The content of `summary.json`, but for `wall_seconds`. Agents that diverged are left out of its statistics."""
    config, watch = session.config, session.stopwatch
    final_returns = np.concatenate([result.final_returns for result in results])
    sound = np.concatenate([result.history.sound() for result in results])
    per_agent = final_returns.mean(axis=1, dtype=np.float64)
    updates = config.num_updates(config.total_steps)
    summary = {
        "preset": preset,
        "env_id": config.env_id,
        "num_agents": session.num_agents,
        "seed": session.seed,
        "env_steps_per_agent": config.total_steps,
        "updates_per_agent": updates,
        "compile_seconds": watch.compiling,
        "train_seconds": watch.training,
        "evaluation_seconds": watch.evaluating,
        "updates_per_second": updates * session.num_agents / watch.training,
        "device": device,
        "final_episodes": FINAL_EPISODES,
        "final_return": statistics.describe_returns(per_agent[sound]),
    }
    optimal_returns = session.setup.environment.optimal_returns
    if optimal_returns is not None:
        shortfall = statistics.shortfall(final_returns, np.asarray(optimal_returns[:FINAL_EPISODES]))
        summary["final_shortfall"] = statistics.describe_shortfall(shortfall[sound])
        summary["per_agent_final_shortfall"] = shortfall
    summary["train_return_last_40"] = _last_training_returns([result.history for result in results])
    summary["per_agent_final_return"] = per_agent
    diverged: dict[int, int] = {}
    for result in results:
        diverged |= result.history.diverged
    summary["diverged_agents"] = sorted(diverged)
    summary["diverged_at_env_steps"] = [diverged[agent] for agent in sorted(diverged)]
    return summary


def _last_training_returns(histories: list[History]) -> dict[str, Any]:
    """The agents' means over their last 40 training episodes, described."""
    means = []
    for history in histories:
        episodes = Episodes(*map(np.concatenate, zip(*history.episodes, strict=True)))
        for agent in history.agents[history.sound()]:
            returns = episodes.episode_return[episodes.agent == agent][-LAST_EPISODES:]
            if len(returns):
                means.append(returns.mean(dtype=np.float64))
    return statistics.describe_returns(np.asarray(means))
