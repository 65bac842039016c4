"""Going on with an earlier run: which checkpoint, which agents it has begun with, and what its user should know."""

import shlex
import sys
from functools import partial

import jax

from ddpg_jax.algorithm import training
from ddpg_jax.algorithm.types import TrainState
from ddpg_jax.config import Config
from ddpg_jax.population.programs import EXAMPLE_HYPERPARAMETERS
from ddpg_jax.processes.team import Team
from ddpg_jax.runs.checkpoint import Checkpoint, Checkpoints, Saved
from ddpg_jax.runs.design import Design
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.json_files import differences
from ddpg_jax.runs.options import Request


def load(
    request: Request, design: Design, folder: RunFolder, checkpoints: Checkpoints, team: Team
) -> Checkpoint | None:
    """The checkpoint to continue from, if there is one.

    Raises:
        ValueError: if it is not there or cannot be used; it names one that can.
    """
    numbers = team.first(checkpoints.numbers)
    if request.resume is None or not (numbers or request.checkpoint):
        return None
    number = request.checkpoint or numbers[-1]
    if number not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        raise ValueError(f"checkpoint is {number}, but must be one of those in {folder.path}: {there}")

    def config_of(agent: int) -> Config:
        return request.points[agent // request.seeds].config

    def like(agent: int) -> TrainState:
        setup = next(part.setup for part in design.parts if agent in part.agents)
        return jax.eval_shape(partial(training.init, setup=setup), jax.random.key(0), EXAMPLE_HYPERPARAMETERS)

    try:
        return checkpoints.load(number, config_of, like)
    except ValueError as error:
        for other in sorted(set(numbers) - {number}, reverse=True):
            try:
                step = checkpoints.load(other, config_of, like).saved.env_steps
            except ValueError:
                continue
            raise ValueError(
                f"{error}; checkpoint {other}, at step {step:,}, is sound: add --checkpoint {other} to resume from it"
            ) from error
        raise ValueError(f"{error}; there is no sound one") from error


def waves(saved: Saved | None, request: Request, design: Design) -> tuple[range, ...]:
    """The agents in portions, of which an earlier process may have begun some."""
    if saved is None:
        return design.waves
    ended = [history.agents for history, *_ in saved.finished]
    begun = (*(range(int(agents[0]), int(agents[-1]) + 1) for agents in ended), saved.agents)
    size = next(plan.wave_size for plan in design.plans if saved.agents.start in plan.agents)
    if len(saved.agents) > size:
        raise ValueError(
            f"resume is {request.resume}, which trained {len(saved.agents)} agents at a time, but must be resumed with "
            f"memory for as many; here is enough for {size}"
        )
    if any(history.env_steps < request.config.total_steps for history, *_ in saved.finished):
        raise ValueError(
            f"total_steps is {request.config.total_steps}, but must be {saved.finished[0][0].env_steps}: the run "
            f"trains its agents in waves, and keeps the state of the last alone"
        )
    return design.waves_after(begun)


def notes(saved: Saved | None, folder: RunFolder, design: Design) -> list[str]:
    """What a user should know about a run that is resumed."""
    where = f"at step {saved.env_steps:,}" if saved else "at its beginning: it has no checkpoint"
    return [f"resuming {folder.path} {where}", *differences(folder.path, design.device)]


def how_to_resume(request: Request, folder: RunFolder) -> str:
    """Advice for someone whose run has ended early."""
    command = [sys.orig_argv[0], "-m", "ddpg_jax.run", "--resume", str(folder.path)]
    if request.distributed:
        command.append("--distributed")
    for name in ("coordinator", "num_processes", "process_id"):
        if getattr(request, name) is not None:
            command += [f"--{name.replace('_', '-')}", str(getattr(request, name))]
    return f"resume with: {shlex.join(command)}"
