"""Continuing an earlier run: which checkpoint, which waves it has begun, and what its user should know."""

import shlex
import sys

from ddpg_jax.algorithm.types import TrainState
from ddpg_jax.config import Config
from ddpg_jax.population.programs import train_state_shapes
from ddpg_jax.processes.team import Team
from ddpg_jax.runs.checkpoint import Checkpoint, Checkpoints, Saved
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.json_files import differences
from ddpg_jax.runs.options import Options
from ddpg_jax.runs.plan import Plan
from ddpg_jax.runs.session import Session


def load(options: Options, plan: Plan, folder: RunFolder, checkpoints: Checkpoints, team: Team) -> Checkpoint | None:
    """Returns the checkpoint to continue from, if there is one.

    Raises:
        ValueError: if the requested one is not there or cannot be used; the message names one that can.
    """
    numbers = team.first(checkpoints.numbers)
    if options.resume is None or not (numbers or options.checkpoint):
        return None
    number = options.checkpoint or numbers[-1]
    if number not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        raise ValueError(f"checkpoint is {number}, but must be one of those in {folder.path}: {there}")

    def config_of(agent: int) -> Config:
        return options.points[agent // options.seeds].config

    def like(agent: int) -> TrainState:
        setup = plan.parts[plan.part_of(agent)].setup
        return train_state_shapes(setup)

    try:
        return checkpoints.load(number, config_of, like)
    except ValueError as error:
        for other in sorted(set(numbers) - {number}, reverse=True):
            try:
                step = checkpoints.load(other, config_of, like).saved.env_steps
            except ValueError:
                continue
            raise ValueError(
                f"{error}; checkpoint {other}, at step {step:,}, is intact: add --checkpoint {other} to resume from it"
            ) from error
        raise ValueError(f"{error}; no other is intact") from error


def waves(saved: Saved | None, options: Options, plan: Plan) -> tuple[range, ...]:
    """Returns the waves of the run, of which an earlier process may have begun some.

    Raises:
        ValueError: if the wave under way does not fit into memory, or waves that have ended are to be extended.
    """
    if saved is None:
        return plan.waves
    ended = [result.history.agents for result in saved.finished]
    begun = (*(range(int(agents[0]), int(agents[-1]) + 1) for agents in ended), saved.agents)
    size = plan.parts[plan.part_of(saved.agents.start)].wave_size
    if len(saved.agents) > size:
        raise ValueError(
            f"resume is {options.resume}, which trained {len(saved.agents)} agents at a time, but must be resumed with "
            f"memory for as many; here is enough for {size}"
        )
    if any(result.history.env_steps < options.config.total_steps for result in saved.finished):
        raise ValueError(
            f"total_steps is {options.config.total_steps}, but must be {saved.finished[0].history.env_steps}: the run "
            f"trains its agents in waves, and keeps only the state of the last"
        )
    return plan.waves_after(begun)


def notes(session: Session) -> list[str]:
    """Returns what a user should know about a run that is resumed."""
    saved = session.checkpoint.saved if session.checkpoint else None
    where = f"at step {saved.env_steps:,}" if saved else "at its beginning: it has no checkpoint"
    path, environment = session.folder.path, session.environment
    begins = f"note: {environment.env_id} begins new episodes: the state of its environments cannot be saved"
    return [
        f"resuming {path} {where}",
        *differences(path, session.plan.device),
        *([begins] if environment.outside is not None else []),
    ]


def how_to_resume(options: Options, folder: RunFolder) -> str:
    """Returns the command that resumes a run that has ended early."""
    command = [sys.orig_argv[0], "-m", "ddpg_jax.run", "--resume", str(folder.path)]
    if options.distributed:
        command.append("--distributed")
    for name in ("coordinator", "num_processes", "process_id"):
        if getattr(options, name) is not None:
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return f"resume with: {shlex.join(command)}"
