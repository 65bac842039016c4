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
from ddpg_jax.results.history import Episodes, History, Metrics
from ddpg_jax.results.statistics import shortfall
from ddpg_jax.results.summary import Finals, best_agent
from ddpg_jax.training.checkpoint import Checkpoint, Checkpoints, Trained
from ddpg_jax.training.divergence import fault_of_environment, note_diverged
from ddpg_jax.training.files import write_text
from ddpg_jax.training.host_trainer import make_trainer
from ddpg_jax.training.logs import open_logs
from ddpg_jax.training.plan import Plan, SetupPlan, longest_chunk, noise_scales
from ddpg_jax.training.policy import Policy, read_policy, write_policy, write_weights
from ddpg_jax.training.programs import MAX_CHUNK
from ddpg_jax.training.progress import Progress
from ddpg_jax.training.recording import record_episodes
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


@dataclass(eq=False)
class Run:
    """Holds what the loop needs in addition to the agents in training."""

    plan: Plan
    stop: StopSignals
    progress: Progress
    callback: Callback | None
    watch: Stopwatch
    folder: RunFolder | None = None
    checkpoints: Checkpoints | None = None
    log: Callable[[int, np.ndarray, Metrics], None] = lambda env_steps, agents, metrics: None
    trained: list[Trained] = field(default_factory=list)
    """The results of the setups that have been trained."""
    policies: list[Policy] = field(default_factory=list)


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
        ValueError: if the folder cannot be used, which is then as it was; or if agents do not fit into the memory of an
            accelerator, whose compiler tells what they need.
        OSError: if something cannot be written.
        EnvironmentFailedError: if an environment on the host raised an error.
    """
    details = describe(plan, command)
    with ExitStack() as stack:
        if plan.options.resume and (finished := finished_result(plan)):
            steps = f"{finished.summary.env_steps_per_agent:,}"
            progress.message(f"{finished.folder} is finished at {steps} steps: there is nothing left to do")
            return finished
        run = Run(plan, stop, progress, callback, watch or Stopwatch())
        checkpoint = None
        if plan.options.out is not None:
            path = plan.options.out
            run.folder = stack.enter_context(RunFolder(path) if plan.options.resume else RunFolder.create(path))
            opened(run.folder)
            details, checkpoint = _open_run(run, run.folder, details)
            run.log = stack.enter_context(open_logs(plan.options.log, run.folder.path, _settings(plan)))
        stack.enter_context(progress)
        complete = True
        try:
            for index, each in enumerate(plan.setups):
                _train_setup(run, index, each, checkpoint)
        except Stopped:
            complete = False
        result = make_result(plan, run.trained, run.policies, details, run.watch, complete=complete)
        return write_result(result, run.folder, run.watch) if run.folder and complete else result


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


def _open_run(run: Run, folder: RunFolder, details: dict[str, Any]) -> tuple[dict[str, Any], Checkpoint | None]:
    """Writes `config.json`; returns its content and the checkpoint to continue from, if any."""
    plan = run.plan
    identity = {name: details[name] for name in ("preset", "seeds", "seed", "group_sizes", "configs")}
    identity["config"] = plan.config.to_dict() | {"total_steps": 0}  # which a resumed run may change
    run.checkpoints = Checkpoints(folder.path / "checkpoints", every=plan.options.checkpoint_every, identity=identity)
    if folder.note:
        run.progress.message(f"note: {folder.note}")
    checkpoint, earlier = None, details
    if plan.options.resume:
        earlier = read_config(folder.path)
        if earlier["custom"] != plan.custom:
            raise ValueError(
                f"resume is {folder.path}, but must be given the setup and hyperparameters that the run was started "
                f"with: ddpg_jax.train(config, setup=..., hyperparameters=..., out=..., resume=True)"
            )
        checkpoint = run.checkpoints.load(lambda text: run.progress.message(f"note: {text}"))
        details["command"], details["resumed"] = earlier["command"], [*earlier["resumed"], details["command"]]
        for text in differences(earlier, details):
            run.progress.message(f"note: {text}")
        if plan.task.environment.host_env is not None:
            run.progress.message(f"note: {plan.config.env_id} begins new episodes: the state of environments on the "
                                 f"host cannot be saved")  # fmt: skip
    if checkpoint is not None:
        if checkpoint.finished and plan.config.total_steps > earlier["config"]["total_steps"]:
            raise ValueError(
                f"total_steps is {plan.config.total_steps}, but must be {earlier['config']['total_steps']}: the sweep "
                f"has networks of several shapes, and only the agents of the last one could train for longer"
            )
        run.trained += checkpoint.finished
        run.watch.restore(checkpoint.seconds)
        run.progress.message(f"resuming {folder.path} at step {checkpoint.history.env_steps:,}")
    write_json(folder.path / "config.json", details)
    return details, checkpoint


def _settings(plan: Plan) -> dict[str, Any]:
    """Returns what logs show of a run's settings."""
    options = plan.options
    return {"seeds": len(options.seeds), "seed": options.seed, **plan.config.to_dict()}


def _train_setup(run: Run, index: int, setup_plan: SetupPlan, checkpoint: Checkpoint | None) -> None:
    """Trains the agents of one setup to their end, evaluates them, and keeps their policies.

    Raises:
        Stopped: if the run was asked to stop.
        EnvironmentFailedError: if an environment on the host raised an error.
    """
    if index < len(run.trained):  # by an earlier process, which has left the policies in the folder
        assert run.folder is not None
        run.policies.append(read_policy(_policy_path(run, index), setup_plan.setup.algorithm.actor))
        run.progress.advanced(run.trained[index].history.env_steps * len(setup_plan.agents), resumed=True)
        return
    trainer, starts = _make_trainer(run, index, setup_plan)
    with closing(trainer):
        history = History(setup_plan.agents, num_envs=setup_plan.setup.num_envs, **noise_scales(run.plan, setup_plan))
        if checkpoint is not None and index == len(checkpoint.finished):
            checkpoint.restore(trainer)
            history = checkpoint.history
            run.progress.advanced(history.env_steps * len(setup_plan.agents), resumed=True)
        try:
            _advance_to_end(run, index, trainer, history, starts)
            trained = _finish(run, trainer, history)
        except Stopped:
            run.trained.append(Trained(history, Finals.unknown(len(setup_plan.agents))))
            run.policies.append(_policy(run, trainer, history))
            raise
        except HostEnvFailure as failure:
            _save(run, trainer, history)
            raise _environment_failed(run, failure) from failure
        run.trained.append(trained)
        run.policies.append(_policy(run, trainer, history, trained.finals))
        if run.folder is not None and index + 1 < len(run.plan.setups):  # the last is written with the result
            write_policy(_policy_path(run, index), run.policies[-1])


def _policy_path(run: Run, index: int) -> Path:
    assert run.folder is not None
    return run.folder.path / "policy" / run.plan.shape_name(index)


def _make_trainer(run: Run, index: int, setup_plan: SetupPlan) -> tuple[Trainer, Starts]:
    """Compiles the programs of a setup, and creates its agents if they fit into memory."""
    plan, num_episodes = run.plan, run.plan.config.eval_episodes or 1
    with run.watch.time("compiling"):
        which = f" program {index + 1} of {len(plan.setups)}" if len(plan.setups) > 1 else ""
        run.progress.compiling(f"compiling{which}")
        programs = setup_plan.compile(plan.task, num_episodes)
        if setup_plan.placement.platform != "cpu":
            plan.require_memory(setup_plan, programs)
        run.stop.defer(run.progress.message)
        keys, starts = agent_keys(plan.options.seed, setup_plan.seeds), plan.task.evaluation_starts(num_episodes)
        where = {"placement": setup_plan.placement, "programs": programs}
        return make_trainer(setup_plan.setup, keys, setup_plan.hyperparameters, starts=starts, **where), starts


def _advance_to_end(run: Run, index: int, trainer: Trainer, history: History, starts: Starts) -> None:
    """Trains agents from where they are to the end of their configuration, and evaluates them on the way."""
    config, setup = run.plan.config, trainer.setup
    evaluations, snapshots = evaluation_steps(config), snapshot_steps(config)
    reported = set(history.diverged)
    chunks = ChunkSizer(setup.num_envs, longest_chunk(setup, recording=bool(run.plan.options.record_every)))
    for target in sorted({*evaluations, *snapshots}):
        if target < history.env_steps:
            continue
        while history.env_steps < target:
            before = history.env_steps
            with run.watch.time("training"):
                ended = chunks.advance(trainer, history, target, run.progress)
            _after_chunk(run, trainer, history, ended, config.total_steps)
            _report_diverged(run, trainer, history, reported, before)
        if target in evaluations:
            with run.watch.time("evaluating"):
                returns = trainer.evaluate(starts).returns.mean(axis=1, dtype=np.float64)
            metrics = history.add_evaluation(returns, setup.num_updates(history.env_steps))
            _after_evaluation(run, history, metrics)
            _report_diverged(run, trainer, history, reported)
        if target in snapshots and run.folder is not None:
            path = run.folder.path / "snapshots" / f"{target:09d}" / run.plan.shape_name(index)
            write_weights(path / "weights.safetensors", trainer.variables(_actor_and_critic))
        if target in evaluations and run.callback is not None and run.callback(history) is True:
            return


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
        start = time.perf_counter()
        log = trainer.advance(
            num_steps,
            frozen=history.frozen(),
            on_progress=lambda agent_steps: progress.advanced(self.num_envs * agent_steps),
        )
        seconds = time.perf_counter() - start
        self.length = max(1, min(MAX_CHUNK, 2 * self.length, int(num_steps / seconds * CHUNK_SECONDS)))
        return history.add_chunk(log)


def _after_chunk(run: Run, trainer: Trainer, history: History, ended: Episodes, total_steps: int) -> None:
    """Reports and records episodes, and saves where that is due.

    Raises:
        Stopped: if the run was asked to stop.
        HostEnvFailure: if an environment raised an error.
    """
    run.progress.episodes_ended(ended)
    if run.folder is not None and run.plan.options.record_every:
        record_episodes(run.folder.path / "rollouts", run.plan.options.record_every, ended, trainer, history.agents)
    if trainer.failure is not None:
        raise trainer.failure
    stopping = run.stop.requested
    # At the end the agents are saved before the evaluation: a longer run that continues may not evaluate at this step.
    if stopping or (run.checkpoints is not None and run.checkpoints.due()) or history.env_steps >= total_steps:
        _save(run, trainer, history)
    if stopping:
        raise Stopped


def _save(run: Run, trainer: Trainer, history: History) -> None:
    if run.checkpoints is not None:
        with run.watch.time("saving"):
            run.checkpoints.save(trainer, history, run.trained, run.watch.counts())


def _after_evaluation(run: Run, history: History, metrics: Metrics) -> None:
    """Reports and logs an evaluation, and writes the tables where they are due."""
    optimum = run.plan.task.optimum(run.plan.config.eval_episodes or 1)
    mean = None if optimum is None else float(optimum.mean())
    run.progress.evaluated(history.env_steps, metrics.eval_return, mean)
    run.log(history.env_steps, history.agents, metrics)
    if run.folder is not None:
        run.folder.write_tables([*(each.history for each in run.trained), history], run.plan.options, if_due=True)


def _finish(run: Run, trainer: Trainer, history: History) -> Trained:
    """Evaluates trained agents for the report, and from other start states to choose the best of them."""
    task, num = run.plan.task, run.plan.config.final_episodes or 1
    with run.watch.time("evaluating"):
        final, selection = (trainer.evaluate(starts) for starts in (task.evaluation_starts(num),
                                                                    task.selection_starts(num)))  # fmt: skip
    note_diverged(trainer, history, final.returns)
    optimum = task.optimum(num)
    return Trained(
        history,
        Finals(
            final_return=final.returns.mean(axis=1, dtype=np.float64),
            final_shortfall=shortfall(final.returns, np.full(num, np.nan) if optimum is None else optimum),
            selection_return=selection.returns.mean(axis=1, dtype=np.float64),
            share_at_bounds=final.share_at_bounds.mean(axis=1, dtype=np.float64),
        ),
    )


def _policy(run: Run, trainer: Trainer, history: History, finals: Finals | None = None) -> Policy:
    """Returns the policies of the agents of a setup."""
    environment = run.plan.task.environment
    finite = history.is_finite()
    return Policy(
        env_id=environment.env_id,
        observation_size=environment.observation_size,
        actor=trainer.setup.algorithm.actor,
        variables=trainer.variables(ema.policy),
        diverged_agents=tuple(np.flatnonzero(~finite).tolist()),
        best_agent=best_agent(finals.selection_return, finite) if finals else None,
        agents=tuple(history.agents.tolist()),
        config=run.plan.config_of(history.agents[0]),
    )


def _environment_failed(run: Run, failure: Exception) -> EnvironmentFailedError:
    """Returns the error of an environment in a line, and keeps its traceback in the run folder."""
    where = ""
    if run.folder is not None:
        path = run.folder.path / "environment_error.txt"
        write_text(path, "".join(traceback.format_exception(failure)))
        where = f" (traceback in {path})"
    return EnvironmentFailedError(f"{failure}{where}")


def _actor_and_critic(agent: Any) -> dict[str, Any]:
    return {"actor": ema.policy(agent), "critic": agent.critic}


def _report_diverged(
    run: Run, trainer: Trainer, history: History, reported: set[int], chunk_start: int | None = None
) -> None:
    """Shows the agents that have diverged and were not reported before."""
    for agent in sorted(set(history.diverged) - reported):
        step, fault = history.diverged[agent], None
        if chunk_start is not None:
            position = int(np.flatnonzero(history.agents == agent)[0])
            fault = fault_of_environment(trainer, position, chunk_start, step)
        run.progress.diverged(agent, step, fault)
        reported.add(agent)


def evaluation_steps(config: Config) -> list[int]:
    """Returns the environment steps at which the agents are evaluated."""
    return [*range(config.eval_every, config.total_steps, config.eval_every), config.total_steps]


def snapshot_steps(config: Config) -> list[int]:
    """Returns the environment steps at which snapshots are taken."""
    loop_steps = config.total_steps // config.num_envs
    return sorted({config.num_envs * -(-loop_steps * i // (NUM_SNAPSHOTS - 1)) for i in range(NUM_SNAPSHOTS)})
