"""`python -m ddpg_jax.render RUN_FOLDER`: pictures of what the agents of a finished run have learned."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.progress import track

from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.environments import pendulum
from ddpg_jax.environments.registry import task_of
from ddpg_jax.environments.task import Task
from ddpg_jax.fields import count
from ddpg_jax.pictures.drawing import Scene, draw_pendulums, draw_q_estimates, draw_state_plane
from ddpg_jax.pictures.film import choose_renderer, draw_film
from ddpg_jax.pictures.snapshots import Trained, load_trained
from ddpg_jax.training.devices import pinned_jax_config
from ddpg_jax.training.files import write_whole
from ddpg_jax.training.output import ignore_broken_pipe
from ddpg_jax.training.result import load

Picture = Literal["pendulums", "state_plane", "q_estimates", "film"]

FILES: dict[Picture, tuple[str, Callable[[Scene], bytes]]] = {
    "pendulums": ("pendulums.gif", draw_pendulums),
    "state_plane": ("state_plane.png", draw_state_plane),
    "q_estimates": ("q_estimates.png", draw_q_estimates),
    "film": ("film.gif", draw_film),
}


@dataclass(frozen=True)
class Options:
    """Draws a finished run: its agents in motion at several snapshots of training (pendulums.gif), policy and value of
    one of them next to the optimum's (state_plane.png), and Q estimates against the returns that followed
    (q_estimates.png). The first two are only for gymnax's Pendulum-v1. Of other environments that can be drawn, one
    agent in an episode at each snapshot (film.gif).
    """

    run_folder: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    only: tuple[Picture, ...] = ()
    """The pictures to draw; without this option all that the environment allows."""
    config: Annotated[int, count(0)] = 0
    """The configuration of a sweep whose agents are drawn, by its number in configs.csv."""
    agents: Annotated[int | None, count(1, 100)] = None
    """Number of agents in the pictures, without diverged ones; the state plane shows the one of them with the median
    return. (default: 16, or all if there are fewer)"""
    first_agent: Annotated[int, count(0)] = 0
    """Leave out the agents of the configuration with smaller numbers."""
    snapshots: tuple[int, ...] = ()
    """At most five of the run's snapshots, by their environment steps; without this option three of them."""
    start: Annotated[int | None, count(0, pendulum.NUM_STARTS - 1)] = None
    """The evaluation's start state of all pendulums and of the film. (default: agents begin in the first, second, …)"""
    episodes: Annotated[int, count(1, pendulum.NUM_STARTS)] = 16
    """Episodes per agent for the Q estimates, from the evaluation's first start states."""
    out: Path | None = None
    """Folder for the pictures. (default: the run's own)"""


@pinned_jax_config()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.render")
    folder = options.out or options.run_folder
    try:
        scene, pictures, left_out = make_scene(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    drawn = draw_all(pictures, scene, left_out)
    try:
        for name, data in drawn.items():
            write_whole(folder / name, data)
            print(folder / name)
    except OSError as error:
        print(f"error: out is {folder}, but must be a folder that can be written: {error}", file=sys.stderr)
        return 2
    for picture, reason in left_out.items():
        if picture in pictures or not (options.only or "pendulums" in pictures):
            print(f"left out: {picture}, because {reason}", file=sys.stdout if drawn else sys.stderr)
    return 0 if drawn else 2


def draw_all(pictures: Sequence[Picture], scene: Scene, left_out: dict[Picture, str]) -> dict[str, bytes]:
    """Returns pictures by the names of their files; adds those that cannot be drawn here to `left_out`."""
    console, drawn = Console(stderr=True), {}
    for picture in track(pictures, "drawing", console=console, transient=True, disable=not console.is_terminal):
        name, draw = FILES[picture]
        try:
            drawn[name] = draw(scene)
        except ValueError as error:
            left_out[picture] = str(error)
    return drawn


def make_scene(options: Options) -> tuple[Scene, Sequence[Picture], dict[Picture, str]]:
    """Checks the options; returns what is drawn, in which pictures, and why others cannot be drawn."""
    choose_renderer()
    trained = load_trained(load(options.run_folder), options.config)
    task = task_of(trained.config)
    left_out = _unavailable(task, trained.config.env_id)
    possible = [picture for picture in FILES if picture not in left_out]
    for picture in (picture for picture in options.only if picture in left_out):
        rule = ", ".join(possible) or "a picture of another environment"
        raise ValueError(f"only is {picture}, but must be {rule}: {left_out[picture]}")
    pictures = options.only or possible
    agents = _chosen_agents(options, trained)[: 1 if set(pictures) == {"film"} else None]
    snapshots = tuple(trained.load(env_steps, agents) for env_steps in _chosen_snapshots(options, trained))
    episodes = options.episodes if {"state_plane", "q_estimates"} & set(pictures) else 0
    return Scene(trained, task, agents, snapshots, options.start, episodes), pictures, left_out


def _unavailable(task: Task, name: str) -> dict[Picture, str]:
    """Returns the pictures that cannot be drawn in the environment of that name, each with the reason."""
    if name == pendulum.ENV_ID:
        return {"film": "pendulums.gif shows the same"}
    other = f"{name} is not gymnax's {pendulum.ENV_ID}"
    reasons: dict[Picture, str] = {"pendulums": other, "state_plane": other}
    if task.environment.host_env is not None:
        reasons["q_estimates"] = f"{name} steps on the host"
    if task.draw is None and task.film_env is None:
        reasons["film"] = f"{name} cannot draw itself"
    return reasons


def _chosen_agents(options: Options, trained: Trained) -> tuple[int, ...]:
    agents = [agent for agent in trained.agents if agent >= options.first_agent]
    if not agents:
        raise ValueError(f"first_agent is {options.first_agent}, but must be at most {trained.agents[-1]}")
    if (options.agents or 1) > len(agents):
        raise ValueError(f"agents is {options.agents}, but must be at most {len(agents)}, all that there are")
    return tuple(agents[: options.agents or 16])


def _chosen_snapshots(options: Options, trained: Trained) -> Sequence[int]:
    steps = list(trained.files)
    if not options.snapshots:
        return sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    if len(options.snapshots) > 5 or not set(options.snapshots) <= set(steps):
        given, rule = " ".join(map(str, options.snapshots)), ", ".join(map(str, steps))
        raise ValueError(f"snapshots is {given}, but must be at most 5 of {rule}")
    return list(dict.fromkeys(options.snapshots))


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
