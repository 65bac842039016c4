"""From checked options to a finished run folder."""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console

from ddpg_jax import plots, session
from ddpg_jax.assembly import make_setup
from ddpg_jax.checkpoint import Checkpoints, Saved
from ddpg_jax.environment import Environment, make
from ddpg_jax.plan import ANNOUNCED_SECONDS, Plan, make_plan
from ddpg_jax.population import Placement, choose_group_size, compile_programs
from ddpg_jax.progress import Bar, Silent, result_table
from ddpg_jax.recording import Recorder
from ddpg_jax.run_folder import RunFolder
from ddpg_jax.session import Session, Stopped, Stopwatch
from ddpg_jax.summary import LAST_EPISODES, summarize
from ddpg_jax.training import Setup

if TYPE_CHECKING:
    from ddpg_jax.run import Options


def launch(options: "Options", started: float) -> int:
    """Trains, evaluates and reports; returns the exit status.

    Raises:
        ValueError: before anything is written, if the options cannot be carried out.
    """
    config = options.config
    environment = make(config.env_id)
    environment.evaluation_starts(config.eval_episodes)  # refuses more than there are
    setup = make_setup(config, environment)
    placement = place(setup, options)
    plan = make_plan(config, setup, placement, options.seeds)
    console = Console(quiet=options.quiet, soft_wrap=True)
    if options.plan:
        announce(console, environment, placement, options)
        console.print(*plan.lines(), sep="\n", highlight=False)
        return 0
    folder = (
        RunFolder.open(options.resume) if options.resume else RunFolder.create(options.out or default_folder(options))
    )
    with folder.lock():
        try:
            return _run(options, setup, placement, plan, folder, console, Stopwatch(started=started))
        except OSError as error:
            print(f"error: {error}; {_how_to_resume(folder)}", file=sys.stderr)
            return 1


def _run(
    options: "Options",
    setup: Setup,
    placement: Placement,
    plan: Plan,
    folder: RunFolder,
    console: Console,
    stopwatch: Stopwatch,
) -> int:
    config = options.config
    checkpoints = Checkpoints(folder.path / "checkpoints", options.checkpoint_every)
    saved = _load(options, folder, checkpoints)
    if saved is not None:
        stopwatch.restore(saved.seconds)
        if folder.is_finished(config.total_steps):
            console.print(f"{folder.path} is finished at {config.total_steps:,} steps: there is nothing left to do")
            return 0
    _require_space(folder.path, plan)
    folder.write_config(config, describe(options, placement))
    announce(console, setup.environment, placement, options)
    if len(plan.waves) > 1 or plan.seconds > ANNOUNCED_SECONDS:
        console.print(*plan.lines(), sep="\n", highlight=False)
    reporter = Silent() if options.quiet else Bar(console, options.seeds * config.total_steps, verbose=options.verbose)
    with _signals() as caught:
        job = Session(
            config=config,
            setup=setup,
            seed=options.seed,
            num_agents=options.seeds,
            waves=plan.waves,
            folder=folder,
            checkpoints=checkpoints,
            reporter=reporter,
            stopwatch=stopwatch,
            recorder=Recorder(folder.path / "rollouts", options.record_every) if options.record_every else None,
            stop_requested=lambda: bool(caught),
        )
        with console.status("compiling"), stopwatch.time("compiling"):
            programs = compile_programs(setup, placement, max_steps=session.MAX_CHUNK, num_starts=config.eval_episodes)
        try:
            with reporter:
                results = session.train(job, programs, saved)
        except Stopped:
            print(f"stopped by {signal.Signals(caught[0]).name}; {_how_to_resume(folder)}", file=sys.stderr)
            return 128 + caught[0]
        summary = summarize(job, options.preset, results, device_words(placement))
        finish(job, results, summary)
    console.print(result_table(summary, str(folder.path)))
    num_diverged = len(summary["diverged_agents"])
    return int(num_diverged == options.seeds or (options.fail_on_divergence and num_diverged > 0))


def _load(options: "Options", folder: RunFolder, checkpoints: Checkpoints) -> Saved | None:
    """The checkpoint to continue from, if there is one.

    Raises:
        ValueError: if it is not there or damaged; it names one that is sound.
    """
    numbers = checkpoints.numbers()
    if options.resume is None or not (numbers or options.checkpoint):
        return None
    number = options.checkpoint or numbers[-1]
    if number not in numbers:
        raise ValueError(f"checkpoint is {number}, but must be one of those in {folder.path}: {numbers}")
    try:
        return checkpoints.load(number, options.config)
    except ValueError as error:
        for other in sorted(set(numbers) - {number}, reverse=True):
            try:
                older = checkpoints.load(other, options.config)
            except ValueError:
                continue
            raise ValueError(
                f"{error}; checkpoint {other}, at step {older.history.env_steps:,}, is sound: "
                f"add --checkpoint {other} to resume from it"
            ) from error
        raise ValueError(f"{error}; there is no sound one") from error


def _how_to_resume(folder: RunFolder) -> str:
    return f"resume with: python -m ddpg_jax.run --resume {folder.path}"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list to which SIGINT and SIGTERM are added; a second one ends the process at once."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_space(path: Path, plan: Plan) -> None:
    """Refuses a disk that is too full for what the run will write.

    Raises:
        OSError: with the numbers.
    """
    free = shutil.disk_usage(path).free
    if free < plan.disk_bytes:
        raise OSError(
            f"{path} is on a disk with {free / 2**20:,.0f} MiB free, but the run may write "
            f"{plan.disk_bytes / 2**20:,.0f} MiB"
        )


def place(setup: Setup, options: "Options") -> Placement:
    """The devices and the group size that the options ask for, or that suit the networks."""
    available = jax.devices()
    if options.devices is not None and options.devices > len(available):
        raise ValueError(f"devices is {options.devices}, but there are {len(available)}")
    devices = tuple(available[: options.devices])
    return Placement(devices, options.group_size or choose_group_size(setup, devices[0].platform))


def default_folder(options: "Options") -> Path:
    """runs/<time>-<preset>-<environment>, with a number behind it if there is one already."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{options.preset}-{options.config.env_id}"
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = Path("runs") / (name + suffix)
        if not path.exists():
            return path
    raise ValueError(f"out is not given, and a thousand folders named runs/{name} exist already")


def device_words(placement: Placement) -> str:
    """Such as "2 x cpu"."""
    return f"{len(placement.devices)} x {placement.devices[0].device_kind}"


def describe(options: "Options", placement: Placement) -> dict[str, Any]:
    """How the run was started, beside its configuration."""
    return {
        "preset": options.preset,
        "num_agents": options.seeds,
        "seed": options.seed,
        "device": device_words(placement),
        "num_devices": len(placement.devices),
        "group_size": placement.group_size,
    }


def announce(console: Console, environment: Environment, placement: Placement, options: "Options") -> None:
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
    folder.write_policy(job.config, environment, summary["diverged_agents"])
    optimum = None
    if environment.optimal_returns is not None:
        optimum = float(np.mean(environment.optimal_returns[: job.config.eval_episodes]))
    folder.write_info(job.config)
    title = f"{summary['preset']} on {environment.env_id}"
    plots.learning_curve(folder.path / "learning_curve.png", histories, title, optimum)
    plots.training_returns(folder.path / "training_returns.png", histories, title, LAST_EPISODES)
    summary["wall_seconds"] = job.stopwatch.wall
    folder.write_summary(summary)
