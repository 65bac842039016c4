"""Runs a plan: trains, saves and evaluates its agents, and returns the result.

The loop, for each setup: train a chunk of steps, save if a checkpoint is due, evaluate if an evaluation is due. The
steps of a chunk are in `algorithm/`; only the `Trainer` knows how agents are placed on devices.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.algorithm import ema
from ddpg_jax.algorithm.evaluation import Starts
from ddpg_jax.config import Config
from ddpg_jax.environments.host import HostEnvFailure
from ddpg_jax.results.history import Episodes, History
from ddpg_jax.results.statistics import shortfall
from ddpg_jax.results.summary import Finals, best_agent
from ddpg_jax.training.checkpoint import Checkpoint, Checkpoints, Trained
from ddpg_jax.training.divergence import fault_of_environment, note_diverged
from ddpg_jax.training.files import write_text
from ddpg_jax.training.host_trainer import make_trainer
from ddpg_jax.training.logs import RunLog, open_run_log
from ddpg_jax.training.plan import Plan, SetupPlan, noise_scales
from ddpg_jax.training.policy import Policy, read_policy, write_policy, write_weights
from ddpg_jax.training.programs import MAX_CHUNK
from ddpg_jax.training.progress import Progress
from ddpg_jax.training.result import Result, load, make_result, write_result
from ddpg_jax.training.run_folder import RunFolder, describe, differences, read_config, saved_options, write_json
from ddpg_jax.training.signals import StopSignals
from ddpg_jax.training.stopwatch import Stopwatch
from ddpg_jax.training.trainer import Trainer, agent_keys

FIRST_CHUNK = 32
"""Steps of the first chunk, before the pace is known."""

CHUNK_SECONDS = 10.0
"""Longest time that a chunk should take, so that a run of many agents stops soon. Results do not depend on it."""

NUM_SNAPSHOTS = 5
"""Number of snapshots of actor and critic, evenly spaced from the beginning of training to its end."""

Callback = Callable[[History], Any]
"""Called after each evaluation with the history of the agents that share programs; True stops them there."""


class Stopped(Exception):  # noqa: N818  (it is not an error)
    """The run was asked to stop. In a run folder, a checkpoint has been written."""


class EnvironmentFailedError(RuntimeError):
    """An environment on the host raised an error. In a run folder, the agents were saved at their last whole step."""


def train_agents(
    plan: Plan,
    *,
    stop: StopSignals,
    progress: Progress,
    callback: Callback | None = None,
    command: Sequence[str] | None = None,
    opened: Callable[[RunFolder], None] = lambda folder: None,
    watch: Stopwatch | None = None,
) -> Result:
    """Trains and evaluates all agents of a plan: in a run folder if `plan.options.out` names one, else in memory.

    Args:
        plan: of the run (`make_plan`).
        stop: listens for the signals that stop a run.
        progress: shows how the run goes.
        callback: called after each evaluation.
        command: the words of the command line, for the run folder.
        opened: called with the run folder as soon as there is one.
        watch: counts the seconds; default: from now on.

    Returns:
        The result. If the run was stopped, it holds what had been measured, and its summary is not `complete`.

    Raises:
        ValueError: if the folder cannot be used, which is then as it was.
        OSError: if something cannot be written.
        EnvironmentFailedError: if an environment on the host raised an error.
    """
    path, details = plan.options.out, describe(plan, command)
    if plan.options.resume and (finished := finished_result(plan)):
        steps = f"{finished.summary.env_steps_per_agent:,}"
        progress.message(f"{finished.folder} is finished at {steps} steps: there is nothing left to do")
        return finished
    with ExitStack() as stack:
        run, checkpoint = Run(plan, stop, progress, watch or Stopwatch(), RunLog(plan.options), callback), None
        if path is not None:
            run.folder = stack.enter_context(RunFolder(path) if plan.options.resume else RunFolder.create(path))
            opened(run.folder)
            details, checkpoint = run.open(run.folder, details)
            run.log = stack.enter_context(open_run_log(plan.options, path))
        stack.enter_context(progress)
        complete = True
        try:
            for index, each in enumerate(plan.setups):
                run.train(index, each, checkpoint)
        except Stopped:
            complete = False
        result = make_result(plan, run.trained, run.policies, details, run.watch, complete=complete)
        if run.folder and complete:
            result = write_result(result, run.folder, run.watch)
        run.log.finish(result.summary, result.history)
        return result


def finished_result(plan: Plan) -> Result | None:
    """Returns the result of the run that is to be resumed, if it has already trained for `total_steps`; else None.

    Raises:
        ValueError: if the plan is that of another run.
    """
    assert plan.options.out is not None
    plan.options.require_same_run(saved_options(plan.options.out))
    try:
        result = load(plan.options.out)
    except ValueError:
        return None
    same = result.configs == plan.options.swept and result.seeds == plan.options.seeds
    return result if same and result.summary.env_steps_per_agent >= plan.config.total_steps else None


@dataclass(eq=False)
class Run:
    """A run in progress."""

    plan: Plan
    stop: StopSignals
    progress: Progress
    watch: Stopwatch
    log: RunLog
    callback: Callback | None = None
    folder: RunFolder | None = None
    checkpoints: Checkpoints | None = None
    trained: list[Trained] = field(default_factory=list)
    """The results of the setups that have been trained."""
    policies: list[Policy] = field(default_factory=list)

    def open(self, folder: RunFolder, details: dict[str, Any]) -> tuple[dict[str, Any], Checkpoint | None]:
        """Writes `config.json`; returns its content and the checkpoint to continue from, if any."""
        plan, checkpoint = self.plan, None
        self.checkpoints = Checkpoints(folder.path / "checkpoints", every=plan.options.checkpoint_every)
        notes = [folder.note] if folder.note else []
        if plan.options.resume:
            earlier = read_config(folder.path)
            if earlier["custom"] != plan.custom:
                raise ValueError(
                    f"resume is {folder.path}, but must be given the setup and hyperparameters that the run was "
                    f"started with: ddpg_jax.train(config, setup=..., hyperparameters=..., out=..., resume=True)"
                )
            checkpoint = self.checkpoints.load(notes.append)
            details["command"], details["resumed"] = earlier["command"], [*earlier["resumed"], details["command"]]
            notes += differences(earlier, details)
            if plan.task.environment.host_env is not None:
                notes.append(f"{plan.config.env_id} begins new episodes: the state of environments on the host cannot "
                             f"be saved")  # fmt: skip
            if checkpoint and checkpoint.finished and plan.config.total_steps > earlier["config"]["total_steps"]:
                raise ValueError(
                    f"total_steps is {plan.config.total_steps}, but must be {earlier['config']['total_steps']}: the "
                    f"sweep has networks of several shapes, and only the agents of the last one could train for longer"
                )
        for note in notes:
            self.progress.message(f"note: {note}")
        if checkpoint is not None:
            self.trained += checkpoint.finished
            self.watch.restore(checkpoint.seconds)
            self.progress.message(f"resuming {folder.path} at step {checkpoint.history.env_steps:,}")
        write_json(folder.path / "config.json", details)
        return details, checkpoint

    def train(self, index: int, each: SetupPlan, checkpoint: Checkpoint | None) -> None:
        """Trains the agents of one setup to their end, evaluates them, and keeps their policies."""
        if index < len(self.trained):  # by an earlier process, which has left the policies in the folder
            self.policies.append(read_policy(self._policy_folder(index), each.setup.algorithm.actor))
            self.progress.advanced(self.trained[index].history.env_steps * len(each.agents), resumed=True)
            return
        trainer, starts = self._make_trainer(index, each)
        with closing(trainer):
            history = History(each.agents, num_envs=each.setup.num_envs, **noise_scales(self.plan, each))
            if checkpoint is not None and index == len(checkpoint.finished):
                checkpoint.restore(trainer)
                history = checkpoint.history
                self.progress.advanced(history.env_steps * len(each.agents), resumed=True)
            try:
                self._advance_to_end(index, trainer, history, starts)
                finals = self._evaluate_finally(trainer, history)
            except Stopped:
                self.trained.append(Trained(history, Finals.unknown(len(each.agents))))
                self.policies.append(self._policy(trainer, history))
                raise
            except HostEnvFailure as failure:
                self._save(trainer, history)
                raise self._environment_failed(failure) from failure
            self.trained.append(Trained(history, finals))
            self.policies.append(self._policy(trainer, history, finals))
        if self.folder is not None and index + 1 < len(self.plan.setups):  # the last is written with the result
            write_policy(self._policy_folder(index), self.policies[-1])

    def _make_trainer(self, index: int, each: SetupPlan) -> tuple[Trainer, Starts]:
        """Compiles the programs of a setup, and creates its agents."""
        plan, num_episodes = self.plan, self.plan.config.eval_episodes or 1
        with self.watch.time("compiling"):
            which = f" program {index + 1} of {len(plan.setups)}" if len(plan.setups) > 1 else ""
            self.progress.compiling(f"compiling{which}")
            programs = each.compile(plan.task, num_episodes)
            self.stop.defer(self.progress.message)
            keys, starts = agent_keys(plan.options.seed, each.seeds), plan.task.evaluation_starts(num_episodes)
            where = {"placement": each.placement, "programs": programs}
            return make_trainer(each.setup, keys, each.hyperparameters, starts=starts, **where), starts

    def _advance_to_end(self, index: int, trainer: Trainer, history: History, starts: Starts) -> None:
        """Trains agents from where they are to the end of their configuration, and evaluates them on the way."""
        config, setup, reported = self.plan.config, trainer.setup, set(history.diverged)
        evaluations, snapshots = evaluation_steps(config), snapshot_steps(config)
        chunks = ChunkSizer(setup.num_envs, min(MAX_CHUNK, setup.replay_capacity // setup.num_envs))
        for target in sorted({*evaluations, *snapshots}):
            if target < history.env_steps:
                continue
            while history.env_steps < target:
                before = history.env_steps
                with self.watch.time("training"):
                    ended = chunks.advance(trainer, history, target, self.progress)
                self.progress.episodes_ended(ended)
                self.log.episodes(ended)
                self._save_if_due(trainer, history)
                self._report_diverged(trainer, history, reported, before)
            if target in evaluations:
                with self.watch.time("evaluating"):
                    returns = trainer.evaluate(starts).returns.mean(axis=1, dtype=np.float64)
                self._after_evaluation(setup.num_updates(history.env_steps), returns, history)
                self._report_diverged(trainer, history, reported)
            if target in snapshots and self.folder is not None:
                path = self.folder.path / "snapshots" / f"{target:09d}" / self.plan.shape_name(index)
                write_weights(path / "weights.safetensors", trainer.variables(_actor_and_critic))
            if target in evaluations and self.callback is not None and self.callback(history) is True:
                return

    def _save_if_due(self, trainer: Trainer, history: History) -> None:
        """Saves where that is due; raises Stopped if the run was asked to stop, and the error of an environment."""
        if trainer.failure is not None:
            raise trainer.failure
        stopping, due = self.stop.requested, self.checkpoints is not None and self.checkpoints.due()
        # Also at the end, before the evaluation: a longer run that continues may not evaluate at this step.
        if stopping or due or history.env_steps >= self.plan.config.total_steps:
            self._save(trainer, history)
        if stopping:
            raise Stopped

    def _save(self, trainer: Trainer, history: History) -> None:
        if self.checkpoints is not None:
            with self.watch.time("saving"):
                self.checkpoints.save(trainer, history, self.trained, self.watch.counts())

    def _after_evaluation(self, updates: int, returns: np.ndarray, history: History) -> None:
        """Keeps, reports and logs an evaluation, and writes the tables where they are due."""
        metrics = history.add_evaluation(returns, updates)
        optimum = self.plan.task.optimum(self.plan.config.eval_episodes or 1)
        mean = None if optimum is None else float(optimum.mean())
        self.progress.evaluated(history.env_steps, metrics.eval_return, mean)
        self.log.evaluation(history, metrics)
        if self.folder is not None:
            histories = [*(each.history for each in self.trained), history]
            self.folder.write_tables(histories, self.plan.options, if_due=True)

    def _report_diverged(
        self, trainer: Trainer, history: History, reported: set[int], chunk_start: int | None = None
    ) -> None:
        """Shows the agents that have diverged and were not reported before."""
        for agent in sorted(set(history.diverged) - reported):
            step, fault = history.diverged[agent], None
            if chunk_start is not None:
                position = int(np.flatnonzero(history.agents == agent)[0])
                fault = fault_of_environment(trainer, position, chunk_start, step)
            self.progress.diverged(agent, step, fault)
            reported.add(agent)

    def _evaluate_finally(self, trainer: Trainer, history: History) -> Finals:
        """Evaluates trained agents for the report, and from other start states to choose the best of them."""
        task, num = self.plan.task, self.plan.config.final_episodes or 1
        with self.watch.time("evaluating"):
            count = self.progress.evaluating(2 * num)
            final = trainer.evaluate(task.evaluation_starts(num), on_progress=count)
            selection = trainer.evaluate(task.selection_starts(num), on_progress=count)
        note_diverged(trainer, history, final.returns)
        optimum = task.optimum(num)
        return Finals(
            final_return=final.returns.mean(axis=1, dtype=np.float64),
            final_shortfall=shortfall(final.returns, np.full(num, np.nan) if optimum is None else optimum),
            selection_return=selection.returns.mean(axis=1, dtype=np.float64),
            share_at_bounds=final.share_at_bounds.mean(axis=1, dtype=np.float64),
        )

    def _policy(self, trainer: Trainer, history: History, finals: Finals | None = None) -> Policy:
        environment, finite = self.plan.task.environment, history.is_finite()
        return Policy(
            env_id=environment.env_id,
            observation_size=environment.observation_size,
            actor=trainer.setup.algorithm.actor,
            variables=trainer.variables(ema.policy),
            diverged_agents=tuple(np.flatnonzero(~finite).tolist()),
            best_agent=best_agent(finals.selection_return, finite) if finals else None,
            agents=tuple(history.agents.tolist()),
            config=self.plan.config_of(history.agents[0]),
        )

    def _policy_folder(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder.path / "policy" / self.plan.shape_name(index)

    def _environment_failed(self, failure: Exception) -> EnvironmentFailedError:
        """Returns the error of an environment in a line, and keeps its traceback in the run folder."""
        where = ""
        if self.folder is not None:
            path = self.folder.path / "environment_error.txt"
            write_text(path, "".join(traceback.format_exception(failure)))
            where = f" (traceback in {path})"
        return EnvironmentFailedError(f"{failure}{where}")


@dataclass
class ChunkSizer:
    """Chooses the number of steps between two returns to the host by the measured speed, which changes no result."""

    num_envs: int
    longest: int
    """The most steps of the loop."""
    length: int = FIRST_CHUNK

    def advance(self, trainer: Trainer, history: History, target: int, progress: Progress) -> Episodes:
        """Trains for a chunk, at most up to `target` environment steps; returns the episodes that ended."""
        num_steps = min(self.length, self.longest, (target - history.env_steps) // self.num_envs)
        ends = history.env_steps, history.env_steps + self.num_envs * num_steps
        before, after = map(trainer.setup.num_updates, ends)
        updates = (after - before) / num_steps  # of an agent, per step of the loop
        start = time.perf_counter()
        log = trainer.advance(
            num_steps,
            frozen=history.frozen(),
            on_progress=lambda steps: progress.advanced(self.num_envs * steps, updates * steps),
        )
        seconds = time.perf_counter() - start
        self.length = max(1, min(MAX_CHUNK, 2 * self.length, int(num_steps / seconds * CHUNK_SECONDS)))
        return history.add_chunk(log)


def _actor_and_critic(agent: Any) -> dict[str, Any]:
    return {"actor": ema.policy(agent), "critic": agent.critic}


def evaluation_steps(config: Config) -> list[int]:
    """Returns the environment steps at which the agents are evaluated."""
    return [*range(config.eval_every, config.total_steps, config.eval_every), config.total_steps]


def snapshot_steps(config: Config) -> list[int]:
    """Returns the environment steps at which snapshots are taken."""
    loop_steps = config.total_steps // config.num_envs
    return sorted({config.num_envs * -(-loop_steps * i // (NUM_SNAPSHOTS - 1)) for i in range(NUM_SNAPSHOTS)})
