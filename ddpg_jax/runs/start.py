"""From checked options to a finished run folder."""

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
from rich.console import Console

from ddpg_jax.population.programs import Programs, compile_programs
from ddpg_jax.processes.files import write_text
from ddpg_jax.processes.signals import Interruption
from ddpg_jax.processes.team import ALONE, LOST, LostProcessError, Team, ToldError
from ddpg_jax.results import page, plots, sweep_plots, tables
from ddpg_jax.runs import resuming, session, wave
from ddpg_jax.runs.checkpoint import Checkpoint, Checkpoints
from ddpg_jax.runs.design import Design, make_design
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.json_files import write_config, write_info, write_json
from ddpg_jax.runs.logs import LOGS, Log, require
from ddpg_jax.runs.options import Request
from ddpg_jax.runs.plan import ANNOUNCED_SECONDS
from ddpg_jax.runs.policy import save_policy
from ddpg_jax.runs.progress import Bar, Silent
from ddpg_jax.runs.recording import Recorder
from ddpg_jax.runs.session import Session, Stopwatch, WaveResult
from ddpg_jax.runs.summary import LAST_EPISODES, best_agent, points_csv, summarize
from ddpg_jax.runs.wave import Stopped

FIGURES_BYTES = 2**20
"""What figures and descriptions take on the disk."""

ROW_BYTES = 200
"""What a row of the tables takes, with the episodes that go with it."""


@dataclass(frozen=True)
class Launch:
    """A run that can begin: everything has been checked, and its folder is entered."""

    request: Request
    design: Design
    waves: tuple[range, ...]
    folder: RunFolder
    checkpoints: Checkpoints
    checkpoint: Checkpoint | None
    """What it continues from."""
    console: Console
    stopwatch: Stopwatch
    team: Team


def prepare(request: Request, interruption: Interruption, started: float, team: Team = ALONE) -> Launch | None:
    """Checks what can be checked before a run starts; None where there is nothing to do.

    The processes of the team do this together: what concerns files, the first one does for all.

    Raises:
        ValueError: if the options cannot be carried out; the disk is then as it was.
    """
    require(request.log)
    design = make_design(request, team)
    request = replace(request, points=design.points)
    # FORCE_COLOR, which notebooks and some build servers set, does not make a terminal of a file.
    quiet = request.quiet or not team.is_first
    console = Console(quiet=quiet, soft_wrap=True, highlight=False, force_terminal=sys.stdout.isatty())
    if request.plan:
        announce(console, request, design)
        console.print(*design.lines(), sep="\n")
        return None
    with ExitStack() as stack:
        try:
            folder = _enter(request, stack, team)
            interruption.advice = partial(_nothing_done, folder, team)
            if request.resume is not None and team.first(lambda: folder.is_finished(request.config.total_steps)):
                steps = f"{request.config.total_steps:,}"
                console.print(f"{folder.path} is finished at {steps} steps: there is nothing left to do")
                return None
            team.first(lambda: _require_space(request, folder, design))
            checkpoints = _checkpoints(request, design, folder, team)
            checkpoint = resuming.load(request, design, folder, checkpoints, team)
            saved = checkpoint.saved if checkpoint is not None else None
            waves = resuming.waves(saved, request, design)
            if request.resume is not None:
                console.print(*resuming.notes(saved, folder, design), sep="\n")
            team.first(lambda: write_config(folder.path, request.config, describe(request, design)))
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(
                f"{_field(request)} is {request.out}, but must be a folder that can be written: {reason}"
            ) from error
        stack.pop_all()
    interruption.advice = partial(resuming.how_to_resume, request, folder) if team.is_first else lambda: None
    return Launch(request, design, waves, folder, checkpoints, checkpoint, console, Stopwatch(started=started), team)


def _enter(request: Request, stack: ExitStack, team: Team) -> RunFolder:
    """The run's folder, which the first process holds for all.

    Raises:
        ValueError: if it cannot be used, or the others do not see it.
    """
    entered: list[RunFolder] = []

    def enter() -> Path:
        entered.append(stack.enter_context(_folder(request)))
        return entered[0].path

    path = team.first(enter)
    folder = entered[0] if entered else RunFolder(path)
    if not all(team.gather(folder.is_entered())):
        raise ValueError(f"{_field(request)} is {path}, but must be on a file system that all processes share")
    return folder


def _folder(request: Request) -> RunFolder:
    if request.resume is not None:
        return RunFolder.open(request.resume)
    return RunFolder.create(request.out) if request.out is not None else RunFolder.create_first(_names(request))


def _names(request: Request) -> Iterator[Path]:
    """runs/<time>-<preset>-<environment>, with a number behind it if there is one already."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{request.preset}-{request.config.env_id}"
    yield from (Path("runs") / (name + suffix) for suffix in ("", *(f"-{i}" for i in range(2, 1000))))


def _field(request: Request) -> str:
    """The option that names the folder."""
    return "resume" if request.resume is not None else "out"


def _require_space(request: Request, folder: RunFolder, design: Design) -> None:
    """Refuses a disk that is too full for what the run will write."""
    rows = request.num_agents * (request.config.total_steps // request.config.eval_every + 1)
    needed = FIGURES_BYTES + design.disk_bytes + 5 * rows * ROW_BYTES  # the tables, their drafts, and in checkpoints
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise ValueError(
            f"{_field(request)} is {folder.path}, but must be on a disk with {needed / 2**20:,.1f} MiB free, "
            f"which the run may take; it has {free / 2**20:,.1f} MiB"
        )


def _checkpoints(request: Request, design: Design, folder: RunFolder, team: Team) -> Checkpoints:
    config, plan = request.config, design.plans[0]
    filled = min(1.0, config.total_steps / config.replay_capacity)
    sweep = [point.to_dict(config)["changes"] for point in design.points]
    return Checkpoints(
        folder.path / "checkpoints",
        every=request.checkpoint_every,
        run={
            "seeds": request.seeds,
            "seed": request.seed,
            "group_sizes": design.group_sizes,
            "sweep": sweep,
            **config.replace(total_steps=1).to_dict(),  # the one field in which a resumed run may differ
        },
        expected_bytes=plan.wave_size / team.size * (filled * plan.replay_bytes + plan.parameter_bytes),
        team=team,
    )


def carry_out(launch: Launch, interruption: Interruption) -> int:
    """Trains, evaluates and reports; returns the exit status."""
    try:
        return _run(launch, interruption)
    except LostProcessError:
        return LOST  # whoever has started the processes knows which one is gone
    except ToldError:
        return 1
    except (OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "there is not enough memory"
        print(f"error: {reason}; {resuming.how_to_resume(launch.request, launch.folder)}", file=sys.stderr)
        return 1
    finally:
        launch.folder.leave()


def _run(launch: Launch, interruption: Interruption) -> int:
    request, config, console, stopwatch = launch.request, launch.request.config, launch.console, launch.stopwatch
    if launch.checkpoint is not None:
        stopwatch.restore(launch.checkpoint.saved.seconds)
    announce(console, request, launch.design)
    if len(launch.waves) > len(launch.design.parts) or launch.design.seconds > ANNOUNCED_SECONDS:
        console.print(*launch.design.lines(), sep="\n")
    with stopwatch.time("compiling"):
        programs = _compile(launch)
    agent_steps = request.num_agents * config.total_steps
    reporter = Silent() if console.quiet else Bar(console, agent_steps, verbose=request.verbose)
    interruption.defer(console.print)
    try:
        with reporter, ExitStack() as stack:
            job = _session(launch, interruption, reporter, _logs(launch, stack))
            results = wave.train(job, programs, launch.checkpoint)
    except Stopped as stop:
        number = interruption.number or signal.SIGTERM
        where = f"by {signal.Signals(number).name} at step {stop.env_steps:,}"
        if launch.team.is_first:
            print(f"stopped {where}; {resuming.how_to_resume(request, launch.folder)}", file=sys.stderr)
        return 128 + number
    return launch.team.first(lambda: _report(launch, job, results))


def _report(launch: Launch, job: Session, results: list[WaveResult]) -> int:
    """What a finished run leaves and shows; returns the exit status."""
    request, console = launch.request, launch.console
    summary = summarize(job, request.preset, results, launch.design.device)
    finish(job, results, summary)
    if request.sweep:
        console.print(tables.ranking_table(summary), tables.conclusion(summary), sep="\n")
    console.print(tables.result_table(summary, str(launch.folder.path)))
    return _status(summary, request)


def _compile(launch: Launch) -> list[Programs]:
    """The programs of each part."""
    parts, programs = launch.design.parts, []
    with launch.console.status("compiling") as status:
        for index, part in enumerate(parts):
            if len(parts) > 1:
                status.update(f"compiling program {index + 1} of {len(parts)}")
            num_starts = launch.request.config.eval_episodes
            programs.append(
                compile_programs(part.setup, part.placement, max_steps=session.MAX_CHUNK, num_starts=num_starts)
            )
    return programs


def _logs(launch: Launch, stack: ExitStack) -> tuple[Log, ...]:
    """The logs that were asked for, which the stack closes."""
    settings = {"seeds": launch.request.seeds, "seed": launch.request.seed, **launch.request.config.to_dict()}
    names = launch.request.log if launch.team.is_first else ()
    opened = tuple(LOGS[name][1](launch.folder.path, settings) for name in names)
    for log in opened:
        stack.callback(log.close)
    return opened


def _session(launch: Launch, interruption: Interruption, reporter: Silent, logs: tuple[Log, ...]) -> Session:
    request = launch.request
    return Session(
        config=request.config,
        points=request.points,
        num_seeds=request.seeds,
        parts=launch.design.parts,
        seed=request.seed,
        waves=launch.waves,
        folder=launch.folder,
        checkpoints=launch.checkpoints,
        reporter=reporter,
        stopwatch=launch.stopwatch,
        recorder=Recorder(launch.folder.path / "rollouts", request.record_every) if request.record_every else None,
        logs=logs,
        stop_requested=lambda: interruption.number is not None,
        team=launch.team,
        verbose=request.verbose,
    )


def _status(summary: dict[str, Any], request: Request) -> int:
    """The exit status of a finished run; where diverged agents make it 1, a line says so."""
    diverged = dict(zip(summary["diverged_agents"], summary["diverged_at_env_steps"], strict=True))
    if not diverged or (len(diverged) < request.num_agents and not request.fail_on_divergence):
        return 0
    named = ", ".join(f"{agent} at step {step:,}" for agent, step in diverged.items())
    print(f"error: {len(diverged)} of {request.num_agents} agents diverged: {named}", file=sys.stderr)
    return 1


def _nothing_done(folder: RunFolder, team: Team) -> str | None:
    """Leaves no trace of a run that is stopped before it has begun."""
    folder.leave()
    return "nothing has been written" if team.is_first else None


def describe(request: Request, design: Design) -> dict[str, Any]:
    """How the run was started, beside its configuration."""
    sweep = {
        "sweep": list(request.sweep),
        "samples": request.samples,
        "points": [point.to_dict(request.config) for point in design.points],
    }
    return {
        "preset": request.preset,
        "num_agents": request.num_agents,
        **(sweep if request.sweep else {}),
        "seed": request.seed,
        "device": design.device,
        "num_devices": design.num_devices,
        "num_processes": design.parts[0].placement.num_processes,
        "group_size": design.group_sizes[0] if len(design.parts) == 1 else request.group_size,
        "checkpoint_every": request.checkpoint_every,
        "record_every": request.record_every,
        "fail_on_divergence": request.fail_on_divergence,
        "log": list(request.log),
    }


def announce(console: Console, request: Request, design: Design) -> None:
    """What is about to happen: the task's spaces, as the Keras tutorial prints them, and the agents' placement."""
    environment = design.environment
    bounds = ", ".join(f"[{low:g}, {high:g}]" for low, high in zip(environment.low, environment.high, strict=True))
    console.print(
        f"{environment.env_id}: {environment.observation_size} observations, {environment.action_size} action(s) in "
        f"{bounds}, episodes of at most {environment.max_steps:,} steps",
        highlight=False,
    )
    if request.sweep:
        programs = f"{len(design.parts)} program(s)"
        console.print(f"{len(design.points):,} points x {request.seeds:,} seeds, in {programs}", highlight=False)
    console.print(
        f"{request.num_agents:,} agents x {request.config.total_steps:,} steps on {design.device}, "
        f"{', '.join(map(str, sorted(set(design.group_sizes))))} at a time on each",
        highlight=False,
    )


def finish(job: Session, results: list[WaveResult], summary: dict[str, Any]) -> None:
    """Writes what a finished run leaves: policies, figures, and last the summary."""
    histories = [result.history for result in results]
    folder, environment = job.folder, job.environment
    job.write_tables(histories)
    for part in job.parts:
        agents = part.agents
        save_policy(
            folder.path / "policy" / part.name,
            job.config_of(agents.start),
            environment,
            num_agents=len(agents),
            diverged_agents=[agent - agents.start for agent in summary["diverged_agents"] if agent in agents],
            best_agent=best_agent(summary, agents),
        )
    write_info(folder.path, job.config)
    title, optimum = f"{summary['preset']} on {environment.env_id}", summary.get("eval_optimum")
    if len(job.points) > 1:
        sweep_plots.learning_curves(folder.path / "learning_curve.png", histories, summary, optimum)
        sweep_plots.swept(folder.path / "sweep.png", summary)
        write_text(folder.path / "points.csv", points_csv(summary))
    else:
        plots.learning_curve(folder.path / "learning_curve.png", histories, title, optimum)
        plots.training_returns(folder.path / "training_returns.png", histories, title, LAST_EPISODES)
    summary["wall_seconds"] = job.stopwatch.wall
    write_text(folder.path / "report.html", page.report_page(folder.path, summary))
    write_json(folder.path / "summary.json", summary)
