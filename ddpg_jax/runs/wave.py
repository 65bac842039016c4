"""The host's loop over the waves of a run: what is done after each chunk, evaluation and snapshot."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from ddpg_jax.algorithm import averaging
from ddpg_jax.algorithm.evaluation import GreedyEpisodes
from ddpg_jax.algorithm.types import TrainState, is_key
from ddpg_jax.population.blocks import Population, agent_keys, on_host
from ddpg_jax.population.host import make_population
from ddpg_jax.population.programs import Programs
from ddpg_jax.results.history import History, Metrics
from ddpg_jax.results.statistics import shortfall
from ddpg_jax.results.summary import WaveResult
from ddpg_jax.runs.checkpoint import Checkpoint, Saved
from ddpg_jax.runs.course import Chunk, Evaluation, Pace, SnapshotDue, course
from ddpg_jax.runs.divergence import Divergence, actor_and_critic, environments_fault, note_diverged
from ddpg_jax.runs.exchange import AfterChunk, AfterEvaluation
from ddpg_jax.runs.logs import evaluation_values
from ddpg_jax.runs.policy import save_weights
from ddpg_jax.runs.session import Session
from ddpg_jax.runs.state_arrays import restore_state, state_arrays


class Stopped(Exception):  # noqa: N818  (it is not an error)
    """The run was asked to stop, and has written a checkpoint.

    Attributes:
        env_steps: the environment steps of the agents that are training.
    """

    def __init__(self, env_steps: int) -> None:
        super().__init__(f"stopped at step {env_steps:,}")
        self.env_steps = env_steps


def train_waves(session: Session, programs: Sequence[Programs]) -> list[WaveResult]:
    """Trains all agents, one wave after another, and writes the files of the run meanwhile.

    Args:
        session: the run.
        programs: compiled programs, one set for each part.

    Returns:
        The results of each wave; in all processes except the first nothing.

    Raises:
        Stopped: if the run was asked to stop.
    """
    results = list(session.checkpoint.saved.finished) if session.checkpoint else []
    session.progress.advanced(sum(result.history.env_steps * len(result.history.agents) for result in results))
    for agents in session.waves[len(results) :]:
        wave = Wave(session, programs[session.plan.part_of(agents.start)], agents, results)
        events = course(
            wave.population,
            wave.history,
            session.environment.evaluation_starts(session.config.eval_episodes),
            max_chunk=wave.part.setup.replay_capacity,  # so that recorded episodes are still in the replay
            pace=wave.pace,
            stopwatch=session.stopwatch,
            on_progress=session.progress.advanced,
        )
        for event in events:
            if isinstance(event, Chunk):
                wave.after_chunk(event)
            elif isinstance(event, Evaluation):
                wave.after_evaluation()
            else:
                wave.after_snapshot(event)
        results += wave.finish()
    return results


class Wave:
    """The agents that are in memory together; this process trains its share of them."""

    def __init__(self, session: Session, programs: Programs, agents: range, finished: list[WaveResult]) -> None:
        """Begins a wave, or continues the one in the checkpoint if that comes next.

        Args:
            session: the run.
            programs: of the agents' part.
            agents: the numbers of all agents of the wave.
            finished: the results of the waves before it.
        """
        self.session, self.agents, self.finished = session, agents, finished
        self.part = session.plan.parts[session.plan.part_of(agents.start)]
        self.share = session.team.share(agents)
        self.pace = Pace()
        self.population = self._new_population(programs)
        self.history = self._new_history()
        checkpoint = session.checkpoint
        if checkpoint is not None and checkpoint.saved.agents == agents:
            self._continue_from(checkpoint)
        self.reported = set(self.history.diverged)

    def after_chunk(self, chunk: Chunk) -> None:
        """Records and reports episodes, and writes a checkpoint where one is due.

        Raises:
            Stopped: if any process was asked to stop.
        """
        session, history = self.session, self.history
        if session.recorder is not None:
            session.recorder.record(chunk.ended, self.population, self.share.start)
        shown = chunk.ended if session.options.verbose else None
        stop, due = session.interruption.number is not None, session.checkpoints.due()
        diverged = self._newly_diverged(history.env_steps - chunk.num_steps)
        sent = session.team.gather(AfterChunk(stop, due, self.pace.length, diverged, shown))
        session.progress.advanced((len(self.agents) - len(self.share)) * chunk.num_steps)  # by the other processes
        for each in sent:
            if each.ended is not None:
                session.progress.ended(each.ended)
            self._report_diverged(each.diverged)
        self.pace.length = min(each.length for each in sent)
        stopping = any(each.stop for each in sent)
        # At the end it is written before the evaluation: a run that goes on for longer may not evaluate at this step.
        if stopping or sent[0].save or history.env_steps == session.config.total_steps:
            self._save()
        if stopping:
            raise Stopped(history.env_steps)

    def after_evaluation(self) -> None:
        """Reports and logs an evaluation, and writes the tables where they are due."""
        session, history = self.session, self.history
        metrics, diverged = history.last_rows(), self._newly_diverged()
        sent = session.team.gather(AfterEvaluation(history.agents, metrics, diverged, session.folder.tables_due()))
        for each in sent:
            self._report_diverged(each.diverged)
        agents = np.concatenate([each.agents for each in sent])
        metrics = Metrics(*map(np.concatenate, zip(*(each.metrics for each in sent), strict=True)))
        session.progress.evaluated(metrics.eval_return[np.isfinite(metrics.eval_return)])
        for log in session.logs:
            log(history.env_steps, evaluation_values(agents, metrics))
        if sent[0].write_tables:
            histories = session.team.to_first(history)
            if histories:
                session.write_tables([*(result.history for result in self.finished), History.join(histories)])

    def after_snapshot(self, event: SnapshotDue) -> None:
        """Writes the parameters of all agents to `snapshots/<environment steps>/`."""
        self._write_variables(f"snapshots/{event.env_steps:09d}", actor_and_critic)

    def finish(self) -> list[WaveResult]:
        """Evaluates the trained agents and writes their policies; the result is known to the first process."""
        environment, history, num = self.session.environment, self.history, self.session.config.final_episodes
        with self.session.stopwatch.time("evaluating"):
            reported = self._final_episodes(environment.evaluation_starts(num))
            selection = self._final_episodes(environment.selection_starts(num))
        note_diverged(self.population, history, reported.returns)
        for diverged in self.session.team.gather(self._newly_diverged()):
            self._report_diverged(diverged)
        self._write_variables("policy", lambda state: jax.tree.map(on_host, averaging.policy(state.agent)))
        optimum = environment.optimal_returns
        best = np.full(num, np.nan) if optimum is None else np.asarray(optimum[:num])
        result = WaveResult(
            history,
            final_return=reported.returns.mean(axis=1, dtype=np.float64),
            final_shortfall=shortfall(reported.returns, best),
            selection_return=selection.returns.mean(axis=1, dtype=np.float64),
            share_at_bounds=reported.share_at_bounds.mean(axis=1, dtype=np.float64),
        )
        results = self.session.team.to_first(result)
        return [WaveResult.join(results)] if results else []

    def _new_population(self, programs: Programs) -> Population:
        """Makes the agents of this process.

        A key depends only on the number of the seed: the points of a sweep share their random numbers. All processes
        have as many blocks, so that they call the same programs; a process without agents trains a copy.
        """
        session, filled = self.session, self.share or self.agents[-1:]
        return make_population(
            self.part.setup,
            programs,
            agent_keys(session.options.seed, np.asarray(filled) % session.options.seeds),
            session.hyperparameters(filled),
            num_agents=len(self.share),
            num_blocks=programs.placement.num_blocks(len(self.agents)),
        )

    def _new_history(self) -> History:
        configs = [self.session.config_of(agent) for agent in self.share]
        unit = self.part.setup.exploration.noise_unit[0]
        return History(
            self.session.config_of(self.agents.start),
            len(self.share),
            first_agent=self.share.start,
            noise_scale=unit * np.array([config.noise_scale for config in configs]),
            noise_decay=np.array([config.noise_decay for config in configs]),
        )

    def _continue_from(self, checkpoint: Checkpoint) -> None:
        filled = self.share or self.agents[-1:]
        self.history = checkpoint.history(filled).of(self.share)
        self.population.restore(partial(_saved_states, checkpoint, filled))
        self.session.progress.advanced(self.history.env_steps * len(self.agents))

    def _write_variables(self, name: str, take: Callable[[TrainState], Any]) -> None:
        """Writes what `take` returns for the agents' states into a folder, one file per portion of the agents."""
        folder = self.session.folder.path / name / self.part.name
        first = self.share.start - self.part.agents.start
        for positions, variables in self.population.portions(take):
            save_weights(folder, first + positions.start, variables)

    def _save(self) -> None:
        """Writes a checkpoint."""
        session = self.session
        with session.stopwatch.time("saving"):
            counts = session.stopwatch.counts()
            saved = Saved(self.finished, self.agents, self.history.env_steps, counts)
            session.checkpoints.save(saved, self.history, self._states())

    def _states(self) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
        """Yields the agents' numbers and their training states, portion by portion."""
        for positions, arrays in self.population.portions(state_arrays):
            yield self.share[positions.start : positions.stop], arrays

    def _final_episodes(self, starts: Any) -> GreedyEpisodes:
        """Runs greedy episodes [N, S] from S start states, by the program that evaluates `eval_episodes` at a time."""
        num, size = len(starts[1]), self.session.config.eval_episodes
        # Rows are taken on the host, where nothing is compiled for them; keys can only be indexed by JAX.
        starts = jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), starts)
        episodes = []
        for first in range(0, num, size):
            if any(self.session.team.gather(self.session.interruption.number is not None)):
                raise Stopped(self.history.env_steps)  # the trained agents have been saved
            index = np.arange(first, first + size).clip(max=num - 1)
            episodes.append(self.population.evaluate(jax.tree.map(lambda x, i=index: x[i], starts)))
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, :num], *episodes)

    def _newly_diverged(self, chunk_start: int | None = None) -> dict[int, Divergence]:
        """Returns the agents not reported before, by the environment's fault if it is seen in a chunk just ended."""
        new = {agent: step for agent, step in self.history.diverged.items() if agent not in self.reported}
        self.reported |= set(new)
        if chunk_start is None:
            return {agent: Divergence(step, None) for agent, step in new.items()}
        fault = partial(environments_fault, self.population, first_step=chunk_start)
        return {agent: Divergence(step, fault(agent - self.share.start, last_step=step)) for agent, step in new.items()}

    def _report_diverged(self, diverged: dict[int, Divergence]) -> None:
        for agent in sorted(diverged):
            self.session.progress.diverged(agent, diverged[agent])


def _saved_states(checkpoint: Checkpoint, agents: range, positions: np.ndarray, like: TrainState) -> TrainState:
    """Returns the states of the agents at these positions; copies of the last agent fill up."""
    first, last = (min(int(position), len(agents) - 1) for position in positions[[0, -1]])
    arrays = checkpoint.states(agents[first : last + 1])
    index = positions.clip(max=last) - first
    return restore_state({name: array[index] if array.ndim else array for name, array in arrays.items()}, like)
