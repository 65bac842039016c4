"""From checked options to a session: nothing is left behind where it is refused."""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ddpg_jax.environments import own, registry
from ddpg_jax.processes.devices import unused_gpu
from ddpg_jax.processes.signals import Interruption
from ddpg_jax.processes.team import ALONE, Team
from ddpg_jax.runs import resuming
from ddpg_jax.runs.checkpoint import Checkpoints
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.json_files import write_config
from ddpg_jax.runs.logs import require
from ddpg_jax.runs.options import Options
from ddpg_jax.runs.plan import Plan, make_plan
from ddpg_jax.runs.progress import Bar, Silent
from ddpg_jax.runs.recording import Recorder
from ddpg_jax.runs.session import Session
from ddpg_jax.runs.stopwatch import Stopwatch

FIGURES_BYTES = 2**20
"""Disk space for figures and descriptions."""

ROW_BYTES = 200
"""Disk space for a row of the tables, with the episodes that belong to it."""


def open_session(options: Options, interruption: Interruption, started: float, team: Team = ALONE) -> Session | None:
    """Checks everything that can be checked before a run starts, and enters its folder.

    The processes of the team do this together: the first handles the files for all.

    Args:
        options: of the run.
        interruption: is told what to say if the run is ended at once.
        started: the time at which the command was started, of `time.perf_counter`.
        team: the processes of the run.

    Returns:
        The session, or None where there is nothing to do: with --plan, or if the run is finished.

    Raises:
        ValueError: if the run is not possible; the disk is then as it was.
    """
    require(options.log)
    console = _console(quiet=options.quiet or not team.is_first)
    plan = make_plan(options, team, console.print)
    options = replace(options, points=plan.points)
    if options.plan:
        announce(console, options, plan)
        console.print(*plan.lines(), sep="\n")
        return None
    with ExitStack() as stack, _folder_errors(options):
        folder = _enter_folder(options, stack, team)
        interruption.advice = partial(_nothing_written, folder, team)
        gpu = unused_gpu(plan.parts[0].placement.devices[0].platform)
        for note in (folder.note, gpu) if team.is_first else (folder.note,):
            if note is not None:
                print(f"note: {note}", file=sys.stderr)
        if options.resume is not None and team.first(lambda: folder.is_finished(options.config.total_steps)):
            steps = f"{options.config.total_steps:,}"
            console.print(f"{folder.path} is finished at {steps} steps: there is nothing left to do")
            return None
        team.first(lambda: _require_space(options, folder, plan))
        checkpoints = _checkpoints(options, plan, folder, team)
        checkpoint = resuming.load(options, plan, folder, checkpoints, team)
        session = Session(
            options=options,
            plan=plan,
            waves=resuming.waves(checkpoint.saved if checkpoint else None, options, plan),
            folder=folder,
            checkpoints=checkpoints,
            checkpoint=checkpoint,
            team=team,
            interruption=interruption,
            console=console,
            progress=_progress(options, console),
            recorder=_recorder(options, folder),
            stopwatch=Stopwatch(started=started),
        )
        if options.resume is not None:
            console.print(*resuming.notes(session), sep="\n")
        team.first(lambda: write_config(folder.path, options.config, describe(options, plan)))
        stack.pop_all()
    interruption.advice = partial(resuming.how_to_resume, options, folder) if team.is_first else lambda: None
    return session


def _console(quiet: bool) -> Console:
    """Returns where the run says what it does, and interprets no text of the user's."""
    # FORCE_COLOR, which notebooks and some build servers set, does not make a terminal of a file.
    return Console(
        quiet=quiet, soft_wrap=True, highlight=False, markup=False, emoji=False, force_terminal=sys.stdout.isatty()
    )


def _recorder(options: Options, folder: RunFolder) -> Recorder | None:
    """Returns what records training episodes, if that is wanted."""
    if not options.record_every:
        return None
    return Recorder(folder.path / "rollouts", options.record_every, options.config.num_envs)


@contextmanager
def _folder_errors(options: Options) -> Iterator[None]:
    """Turns errors of the operating system into a refusal of the run folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"{_field(options)} is {options.out}, but must be a folder that can be written: {reason}"
        ) from error


def _enter_folder(options: Options, stack: ExitStack, team: Team) -> RunFolder:
    """Returns the run's folder, which the first process locks for all.

    Raises:
        ValueError: if it cannot be used, or the other processes do not see it.
    """
    entered: list[RunFolder] = []

    def enter() -> Path:
        entered.append(stack.enter_context(_folder(options)))
        return entered[0].path

    path = team.first(enter)
    folder = entered[0] if entered else RunFolder(path)
    if not all(team.gather(folder.is_entered())):
        raise ValueError(f"{_field(options)} is {path}, but must be on a file system that all processes share")
    return folder


def _folder(options: Options) -> RunFolder:
    if options.resume is not None:
        return RunFolder.open(options.resume)
    return RunFolder.create(options.out) if options.out is not None else RunFolder.create_first(_names(options))


def _names(options: Options) -> Iterator[Path]:
    """Yields runs/<time>-<preset>-<environment>, then the same with a number behind it."""
    environment = re.sub(r"[^\w.-]", "-", options.config.env_id)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{options.preset}-{environment}"
    yield from (Path("runs") / (name + suffix) for suffix in ("", *(f"-{i}" for i in range(2, 1000))))


def _field(options: Options) -> str:
    """Returns the option that names the folder."""
    return "resume" if options.resume is not None else "out"


def _require_space(options: Options, folder: RunFolder, plan: Plan) -> None:
    """Refuses a disk that is too full for what the run will write."""
    rows = options.num_agents * (options.config.total_steps // options.config.eval_every + 1)
    needed = FIGURES_BYTES + plan.disk_bytes + 5 * rows * ROW_BYTES  # the tables, their drafts, and in checkpoints
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise ValueError(
            f"{_field(options)} is {folder.path}, but must be on a disk with {needed / 2**20:,.1f} MiB free, "
            f"which the run may need; it has {free / 2**20:,.1f} MiB"
        )


def _checkpoints(options: Options, plan: Plan, folder: RunFolder, team: Team) -> Checkpoints:
    """Returns the checkpoints of this run; those of a run with other values will be refused."""
    config, part = options.config, plan.parts[0]
    filled = min(1.0, config.total_steps / config.replay_capacity)
    return Checkpoints(
        folder.path / "checkpoints",
        every=options.checkpoint_every,
        run={
            "seeds": options.seeds,
            "seed": options.seed,
            "group_sizes": plan.group_sizes,
            "sweep": [point.to_dict(config)["changes"] for point in plan.points],
            **config.to_dict(),
            "total_steps": 1,  # the one field in which a resumed run may differ
        },
        expected_bytes=part.wave_size / team.size * (filled * part.replay_bytes + part.parameter_bytes),
        team=team,
    )


def _progress(options: Options, console: Console) -> Silent:
    """Returns what shows how the run goes."""
    if console.quiet:
        return Silent()
    return Bar(console, options.num_agents * options.config.total_steps, verbose=options.verbose)


def _nothing_written(folder: RunFolder, team: Team) -> str | None:
    """Leaves no trace of a run that is ended before it has begun; returns what to say."""
    folder.leave()
    return "nothing has been written" if team.is_first else None


def describe(options: Options, plan: Plan) -> dict[str, Any]:
    """Returns how the run was started, in addition to its configuration."""
    parts = plan.environment.observation_parts
    sweep = {
        "sweep": list(options.sweep),
        "samples": options.samples,
        "points": [point.to_dict(options.config) for point in plan.points],
    }
    return {
        "preset": options.preset,
        "num_agents": options.num_agents,
        **(sweep if options.sweep else {}),
        "seed": options.seed,
        "device": plan.device,
        "num_devices": plan.num_devices,
        "num_processes": plan.parts[0].placement.num_processes,
        "group_size": plan.group_sizes[0] if len(plan.parts) == 1 else options.group_size,
        "checkpoint_every": options.checkpoint_every,
        "record_every": options.record_every,
        "fail_on_divergence": options.fail_on_divergence,
        "log": list(options.log),
        **_where_from(options.config.env_id),
        **({"observation": {name: list(shape) for name, shape in parts}} if parts else {}),
    }


def _where_from(env_id: str) -> dict[str, Any]:
    """Returns the folder from which the user's own environment was imported."""
    return {"env_folder": own.folder_of(env_id)} if registry.is_own(env_id) else {}


def announce(console: Console, options: Options, plan: Plan) -> None:
    """Prints the task's spaces, as the Keras tutorial does, and the placement of the agents."""
    environment = plan.environment
    bounds = ", ".join(f"[{low:g}, {high:g}]" for low, high in zip(environment.low, environment.high, strict=True))
    console.print(
        f"{environment.env_id}: {environment.observation_size} observations, {environment.action_size} action(s) in "
        f"{bounds}, episodes of at most {environment.max_steps:,} steps",
        highlight=False,
    )
    if options.sweep:
        programs = f"{len(plan.parts)} program(s)"
        console.print(f"{len(plan.points):,} points x {options.seeds:,} seeds, in {programs}", highlight=False)
    sizes = sorted(set(plan.group_sizes))
    groups = "" if sizes == [1] else f", {', '.join(map(str, sizes))} at a time on each"
    console.print(
        f"{options.num_agents:,} agents x {options.config.total_steps:,} steps on {plan.device}{groups}",
        highlight=False,
    )
