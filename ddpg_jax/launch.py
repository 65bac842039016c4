"""From checked options to a finished run folder."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console

from ddpg_jax import plots, session
from ddpg_jax.assembly import make_setup
from ddpg_jax.environment import Environment, make
from ddpg_jax.plan import ANNOUNCED_SECONDS, make_plan
from ddpg_jax.population import Placement, choose_group_size, compile_programs
from ddpg_jax.progress import Bar, Silent, result_table
from ddpg_jax.run_folder import RunFolder
from ddpg_jax.session import Session, Stopwatch
from ddpg_jax.training import Setup

if TYPE_CHECKING:
    from ddpg_jax.run import Options


def launch(options: "Options", started: float) -> int:
    """Trains, evaluates and reports; returns the exit status.

    Raises:
        ValueError: before anything is written, if the options cannot be carried out.
    """
    config = options.config
    environment = make(config.env_id, config.max_episode_steps)
    environment.evaluation_starts(config.eval_episodes)  # refuses more than there are
    setup = make_setup(config, environment)
    placement = place(setup, options)
    plan = make_plan(config, setup, placement, options.seeds)
    console = Console(quiet=options.quiet, soft_wrap=True)
    device = f"{len(placement.devices)} x {placement.devices[0].device_kind}"
    if options.plan:
        announce(console, environment, placement, device, options)
        console.print(*plan.lines(), sep="\n", highlight=False)
        return 0
    folder = RunFolder.create(options.out or default_folder(options))
    folder.write_config(
        config,
        {
            "preset": options.preset,
            "num_agents": options.seeds,
            "seed": options.seed,
            "device": device,
            "group_size": placement.group_size,
        },
    )
    announce(console, environment, placement, device, options)
    if len(plan.waves) > 1 or plan.seconds > ANNOUNCED_SECONDS:
        console.print(*plan.lines(), sep="\n", highlight=False)
    stopwatch = Stopwatch(started=started)
    with console.status("compiling"), stopwatch.time("compiling"):
        programs = compile_programs(setup, placement, max_steps=session.MAX_CHUNK, num_starts=config.eval_episodes)
    reporter = Silent() if options.quiet else Bar(console, options.seeds * config.total_steps, verbose=options.verbose)
    job = Session(
        config=config,
        setup=setup,
        seed=options.seed,
        num_agents=options.seeds,
        waves=plan.waves,
        folder=folder,
        reporter=reporter,
        stopwatch=stopwatch,
    )
    with reporter:
        results = session.train(job, programs)
    summary = session.summarize(job, options.preset, results, device)
    finish(folder, job, results, summary, options.preset)
    console.print(result_table(summary, str(folder.path)))
    return 0 if len(summary["diverged_agents"]) < options.seeds else 1


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


def announce(console: Console, environment: Environment, placement: Placement, device: str, options: "Options") -> None:
    """What is about to happen: the task's spaces, as the Keras tutorial prints them, and the agents' placement."""
    bounds = ", ".join(f"[{low:g}, {high:g}]" for low, high in zip(environment.low, environment.high, strict=True))
    console.print(
        f"{environment.env_id}: {environment.observation_size} observations, {environment.action_size} action(s) in "
        f"{bounds}, at most {environment.max_steps} steps an episode",
        highlight=False,
    )
    console.print(
        f"{options.seeds} agents x {options.config.total_steps:,} steps on {device}, "
        f"{placement.group_size} at a time on each",
        highlight=False,
    )


def finish(
    folder: RunFolder, job: Session, results: list[session.WaveResult], summary: dict[str, Any], preset: str
) -> None:
    """Writes what a finished run leaves: policies, figures, and last the summary."""
    histories = [result.history for result in results]
    environment = job.setup.environment
    folder.write_policy(job.config, environment, summary["diverged_agents"])
    optimum = None
    if environment.optimal_returns is not None:
        optimum = float(np.mean(environment.optimal_returns[: job.config.eval_episodes]))
    title = f"{preset} on {environment.env_id}"
    plots.learning_curve(folder.path / "learning_curve.png", histories, title, optimum)
    summary["wall_seconds"] = job.stopwatch.wall
    folder.write_summary(summary)
