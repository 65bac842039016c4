"""From checked options to a finished run folder."""

import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from ddpg_jax import plots, session, training
from ddpg_jax.assembly import make_setup
from ddpg_jax.checkpoint import Checkpoints, Saved
from ddpg_jax.environment import Environment, make
from ddpg_jax.interruption import Interruption
from ddpg_jax.options import Options
from ddpg_jax.plan import ANNOUNCED_SECONDS, Plan, make_plan
from ddpg_jax.population import EXAMPLE_HYPERPARAMETERS, Placement, choose_group_size, compile_programs
from ddpg_jax.progress import Bar, Silent, result_table
from ddpg_jax.recording import Recorder
from ddpg_jax.run_folder import RunFolder, differences
from ddpg_jax.session import Session, Stopped, Stopwatch
from ddpg_jax.summary import LAST_EPISODES, summarize
from ddpg_jax.training import Setup

FIGURES_BYTES = 2**20
"""What figures and descriptions take on the disk."""

ROW_BYTES = 200
"""What a row of the tables takes, with the episodes that go with it."""

MAX_EVALUATIONS = 100_000
"""Evaluations of a run, at most."""

MAX_EVAL_EPISODES = 65_536
"""Greedy episodes of an agent in an evaluation, at most: they run side by side, in memory."""


@dataclass(frozen=True)
class Launch:
    """A run that can begin: everything has been checked, and its folder is entered."""

    options: Options
    setup: Setup
    placement: Placement
    plan: Plan
    folder: RunFolder
    checkpoints: Checkpoints
    saved: Saved | None
    """What it continues from."""
    console: Console
    stopwatch: Stopwatch


def prepare(options: Options, interruption: Interruption, started: float) -> Launch | None:
    """Checks what can be checked before a run starts; None where there is nothing to do.

    Raises:
        ValueError: if the options cannot be carried out; the disk is then as it was.
    """
    setup, placement, plan = _design(options)
    console = Console(quiet=options.quiet, soft_wrap=True, highlight=False)
    if options.plan:
        announce(console, setup.environment, placement, options)
        console.print(*plan.lines(), sep="\n")
        return None
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_folder(options))
            interruption.advice = partial(_nothing_done, folder)
            if options.resume is not None and folder.is_finished(options.config.total_steps):
                steps = f"{options.config.total_steps:,}"
                console.print(f"{folder.path} is finished at {steps} steps: there is nothing left to do")
                return None
            _require_space(options, folder, plan)
            checkpoints = _checkpoints(options, placement, plan, folder)
            saved = _load(options, setup, folder, checkpoints)
            plan = _with_waves_of(saved, plan, options)
            if options.resume is not None:
                console.print(*_resumption(saved, folder, placement), sep="\n")
            folder.write_config(options.config, describe(options, placement))
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(
                f"{_field(options)} is {options.out}, but must be a folder that can be written: {reason}"
            ) from error
        stack.pop_all()
    interruption.advice = partial(_how_to_resume, folder)
    return Launch(options, setup, placement, plan, folder, checkpoints, saved, console, Stopwatch(started=started))


def _design(options: Options) -> tuple[Setup, Placement, Plan]:
    """What will be compiled, where it will run, and what that takes."""
    config = options.config
    if config.eval_episodes > MAX_EVAL_EPISODES:
        raise ValueError(f"eval_episodes is {config.eval_episodes}, but must be at most {MAX_EVAL_EPISODES}")
    least = -(-config.total_steps // MAX_EVALUATIONS)
    if config.eval_every < least:
        raise ValueError(
            f"eval_every is {config.eval_every}, but must be at least {least}: a run of {config.total_steps:,} steps "
            f"is evaluated at most {MAX_EVALUATIONS:,} times"
        )
    try:
        environment = make(config.env_id)
    except OSError as error:  # some of gymnax's environments download data
        raise ValueError(f"env_id is {config.env_id!r}, but must be usable here: {error}") from error
    environment.evaluation_starts(config.eval_episodes)  # refuses more than there are
    setup = make_setup(config, environment)
    placement = place(setup, options)
    return setup, placement, make_plan(config, setup, placement, options.seeds)


def _folder(options: Options) -> RunFolder:
    if options.resume is not None:
        return RunFolder.open(options.resume)
    return RunFolder.create(options.out) if options.out is not None else RunFolder.create_first(_names(options))


def _names(options: Options) -> Iterator[Path]:
    """runs/<time>-<preset>-<environment>, with a number behind it if there is one already."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{options.preset}-{options.config.env_id}"
    yield from (Path("runs") / (name + suffix) for suffix in ("", *(f"-{i}" for i in range(2, 1000))))


def _field(options: Options) -> str:
    """The option that names the folder."""
    return "resume" if options.resume is not None else "out"


def _require_space(options: Options, folder: RunFolder, plan: Plan) -> None:
    """Refuses a disk that is too full for what the run will write."""
    rows = options.seeds * (options.config.total_steps // options.config.eval_every + 1)
    needed = FIGURES_BYTES + plan.disk_bytes + 5 * rows * ROW_BYTES  # the tables, their drafts, and in checkpoints
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise ValueError(
            f"{_field(options)} is {folder.path}, but must be on a disk with {needed / 2**20:,.1f} MiB free, "
            f"which the run may take; it has {free / 2**20:,.1f} MiB"
        )


def _checkpoints(options: Options, placement: Placement, plan: Plan, folder: RunFolder) -> Checkpoints:
    config = options.config
    filled = min(1.0, config.total_steps / config.replay_capacity)
    return Checkpoints(
        folder.path / "checkpoints",
        every=options.checkpoint_every,
        run={
            "seeds": options.seeds,
            "seed": options.seed,
            "devices": len(placement.devices),
            "group_size": placement.group_size,
            **config.replace(total_steps=1).to_dict(),  # the one field in which a resumed run may differ
        },
        expected_bytes=len(plan.waves[0]) * (filled * plan.replay_bytes + plan.parameter_bytes),
    )


def _load(options: Options, setup: Setup, folder: RunFolder, checkpoints: Checkpoints) -> Saved | None:
    """The checkpoint to continue from, if there is one.

    Raises:
        ValueError: if it is not there or cannot be used; it names one that can.
    """
    numbers = checkpoints.numbers()
    if options.resume is None or not (numbers or options.checkpoint):
        return None
    number = options.checkpoint or numbers[-1]
    if number not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        raise ValueError(f"checkpoint is {number}, but must be one of those in {folder.path}: {there}")
    like = jax.eval_shape(partial(training.init, setup=setup), jax.random.key(0), EXAMPLE_HYPERPARAMETERS)
    try:
        return checkpoints.load(number, options.config, like)
    except ValueError as error:
        for other in sorted(set(numbers) - {number}, reverse=True):
            try:
                step = checkpoints.load(other, options.config, like).history.env_steps
            except ValueError:
                continue
            raise ValueError(
                f"{error}; checkpoint {other}, at step {step:,}, is sound: add --checkpoint {other} to resume from it"
            ) from error
        raise ValueError(f"{error}; there is no sound one") from error


def _with_waves_of(saved: Saved | None, plan: Plan, options: Options) -> Plan:
    """The plan with the waves that an earlier process has begun: its memory may have been another."""
    if saved is None:
        return plan
    begun = [history.agents for history in (*(history for history, _ in saved.finished), saved.history)]
    waves = [range(int(agents[0]), int(agents[-1]) + 1) for agents in begun]
    size = len(plan.waves[0])
    if len(waves[-1]) > size:
        raise ValueError(
            f"resume is {options.resume}, which trained {len(waves[-1])} agents at a time, but must be resumed with "
            f"memory for as many; here is enough for {size}"
        )
    if any(history.env_steps < options.config.total_steps for history, _ in saved.finished):
        raise ValueError(
            f"total_steps is {options.config.total_steps}, but must be {saved.finished[0][0].env_steps}: the run "
            f"trains its agents in waves, and keeps the state of the last alone"
        )
    first = waves[-1].stop
    waves += [range(at, min(at + size, options.seeds)) for at in range(first, options.seeds, size)]
    return replace(plan, waves=tuple(waves))


def _resumption(saved: Saved | None, folder: RunFolder, placement: Placement) -> list[str]:
    """What a user should know about a run that is resumed."""
    where = f"at step {saved.history.env_steps:,}" if saved else "at its beginning: it has no checkpoint"
    return [f"resuming {folder.path} {where}", *differences(folder.path, device_words(placement))]


def carry_out(launch: Launch, interruption: Interruption) -> int:
    """Trains, evaluates and reports; returns the exit status."""
    try:
        return _run(launch, interruption)
    except (OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "there is not enough memory"
        print(f"error: {reason}; {_how_to_resume(launch.folder)}", file=sys.stderr)
        return 1
    finally:
        launch.folder.leave()


def _run(launch: Launch, interruption: Interruption) -> int:
    options, config, console, stopwatch = launch.options, launch.options.config, launch.console, launch.stopwatch
    if launch.saved is not None:
        stopwatch.restore(launch.saved.seconds)
    announce(console, launch.setup.environment, launch.placement, options)
    if len(launch.plan.waves) > 1 or launch.plan.seconds > ANNOUNCED_SECONDS:
        console.print(*launch.plan.lines(), sep="\n")
    launch.checkpoints.prepare()
    with console.status("compiling"), stopwatch.time("compiling"):
        programs = compile_programs(
            launch.setup, launch.placement, max_steps=session.MAX_CHUNK, num_starts=config.eval_episodes
        )
    reporter = Silent() if options.quiet else Bar(console, options.seeds * config.total_steps, verbose=options.verbose)
    job = _session(launch, interruption, reporter)
    interruption.defer(console.print)
    try:
        with reporter:
            results = session.train(job, programs, launch.saved)
    except Stopped as stop:
        number = interruption.number or signal.SIGTERM
        where = f"by {signal.Signals(number).name} at step {stop.env_steps:,}"
        print(f"stopped {where}; {_how_to_resume(launch.folder)}", file=sys.stderr)
        return 128 + number
    summary = summarize(job, options.preset, results, device_words(launch.placement))
    finish(job, results, summary)
    console.print(result_table(summary, str(launch.folder.path)))
    return _status(summary, options)


def _session(launch: Launch, interruption: Interruption, reporter: Silent) -> Session:
    options = launch.options
    return Session(
        config=options.config,
        setup=launch.setup,
        seed=options.seed,
        num_agents=options.seeds,
        waves=launch.plan.waves,
        folder=launch.folder,
        checkpoints=launch.checkpoints,
        reporter=reporter,
        stopwatch=launch.stopwatch,
        recorder=Recorder(launch.folder.path / "rollouts", options.record_every) if options.record_every else None,
        stop_requested=lambda: interruption.number is not None,
    )


def _status(summary: dict[str, Any], options: Options) -> int:
    """The exit status of a finished run; where diverged agents make it 1, a line says so."""
    diverged = dict(zip(summary["diverged_agents"], summary["diverged_at_env_steps"], strict=True))
    if not diverged or (len(diverged) < options.seeds and not options.fail_on_divergence):
        return 0
    named = ", ".join(f"{agent} at step {step:,}" for agent, step in diverged.items())
    print(f"error: {len(diverged)} of {options.seeds} agents diverged: {named}", file=sys.stderr)
    return 1


def _how_to_resume(folder: RunFolder) -> str:
    command = [sys.orig_argv[0], "-m", "ddpg_jax.run", "--resume", str(folder.path)]
    return f"resume with: {shlex.join(command)}"


def _nothing_done(folder: RunFolder) -> str:
    """Leaves no trace of a run that is stopped before it has begun."""
    folder.leave()
    return "nothing has been written"


def place(setup: Setup, options: Options) -> Placement:
    """The devices and the group size that the options ask for, or that suit the networks."""
    available = jax.devices()
    if options.devices is not None and options.devices > len(available):
        raise ValueError(f"devices is {options.devices}, but there are {len(available)}")
    devices = tuple(available[: options.devices])
    return Placement(devices, options.group_size or choose_group_size(setup, devices[0].platform))


def device_words(placement: Placement) -> str:
    """Such as "2 x cpu"."""
    return f"{len(placement.devices)} x {placement.devices[0].device_kind}"


def describe(options: Options, placement: Placement) -> dict[str, Any]:
    """How the run was started, beside its configuration."""
    return {
        "preset": options.preset,
        "num_agents": options.seeds,
        "seed": options.seed,
        "device": device_words(placement),
        "num_devices": len(placement.devices),
        "group_size": placement.group_size,
        "checkpoint_every": options.checkpoint_every,
        "record_every": options.record_every,
        "fail_on_divergence": options.fail_on_divergence,
    }


def announce(console: Console, environment: Environment, placement: Placement, options: Options) -> None:
    """What is about to happen: the task's spaces, as the Keras tutorial prints them, and the agents' placement."""
    bounds = ", ".join(f"[{low:g}, {high:g}]" for low, high in zip(environment.low, environment.high, strict=True))
    console.print(
        f"{environment.env_id}: {environment.observation_size} observations, {environment.action_size} action(s) in "
        f"{bounds}, episodes of at most {environment.max_steps:,} steps",
        highlight=False,
    )
    console.print(
        f"{options.seeds:,} agents x {options.config.total_steps:,} steps on {device_words(placement)}, "
        f"{placement.group_size} at a time on each",
        highlight=False,
    )


def finish(job: Session, results: list[session.WaveResult], summary: dict[str, Any]) -> None:
    """Writes what a finished run leaves: policies, figures, and last the summary."""
    histories = [result.history for result in results]
    folder, environment = job.folder, job.setup.environment
    folder.write_tables(histories)
    diverged = summary["diverged_agents"]
    folder.write_policy(job.config, environment, num_agents=job.num_agents, diverged_agents=diverged)
    optimum = None
    if environment.optimal_returns is not None:
        optimum = float(np.mean(environment.optimal_returns[: job.config.eval_episodes]))
    folder.write_info(job.config)
    title = f"{summary['preset']} on {environment.env_id}"
    plots.learning_curve(folder.path / "learning_curve.png", histories, title, optimum)
    plots.training_returns(folder.path / "training_returns.png", histories, title, LAST_EPISODES)
    summary["wall_seconds"] = job.stopwatch.wall
    folder.write_summary(summary)
