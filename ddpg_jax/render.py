"""`python -m ddpg_jax.render RUN_FOLDER`: pictures of what the agents of a finished run have learned."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.command_line import POSITIONAL, Alias, parse
from ddpg_jax.domains import count
from ddpg_jax.environments.adapting import adapted
from ddpg_jax.environments.pendulum import NUM_STARTS as NUM_PENDULUM_STARTS
from ddpg_jax.environments.registry import make
from ddpg_jax.pictures import animation
from ddpg_jax.pictures.drawing import Scene, draw_pendulums, draw_q_estimates, draw_state_plane
from ddpg_jax.pictures.film import choose_renderer, draw_film
from ddpg_jax.pictures.snapshots import Trained, load_trained
from ddpg_jax.processes.devices import own_settings
from ddpg_jax.processes.files import write_whole
from ddpg_jax.processes.output import endure
from ddpg_jax.runs.json_files import look_where_it_was

PENDULUM = "Pendulum-v1"
WHY_NOT = {
    "pendulums": f"is not gymnax's {PENDULUM}",
    "state_plane": f"is not gymnax's {PENDULUM}",
    "q_estimates": "steps on the host",
    "film": "cannot draw itself",
}
"""Why a picture cannot be drawn of an environment."""
USUAL_AGENTS, MAX_AGENTS = 16, 100
MAX_SNAPSHOTS = 5

Picture = Literal["pendulums", "state_plane", "q_estimates", "film"]
OF_PENDULUM: tuple[Picture, ...] = ("pendulums", "state_plane")


@dataclass(frozen=True)
class Options:
    """Draws a finished run: its agents in motion at several snapshots of training (pendulums.gif), policy and value of
    one of them next to the optimum's (state_plane.png), and Q estimates against the returns that followed
    (q_estimates.png). The first two are only for gymnax's Pendulum-v1. Of an environment that its library can draw, one
    agent in an episode at each snapshot (film.gif).
    """

    run_folder: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    only: tuple[Picture, ...] = ()
    """The pictures to draw; if none is named, all that the environment allows."""
    agents: Annotated[int | None, count(1, MAX_AGENTS)] = None
    """Number of agents in the pictures; None: 16, or all if there are fewer. Diverged agents are not
    counted. The state plane shows the one of them with the median return."""
    first_agent: Annotated[int, count(0)] = 0
    """The first agent in the pictures, counted from 0."""
    snapshots: Annotated[tuple[int, ...], Alias("--moments")] = ()
    """At most five of the run's snapshots, by their environment steps; if none is named, the first, the middle and the
    last."""
    start: Annotated[int | None, count(0, NUM_PENDULUM_STARTS - 1)] = None
    """The evaluation's start state that all pendulums begin in; None: the first agent in the first, and so on."""
    episodes: Annotated[int, count(1, NUM_PENDULUM_STARTS)] = 16
    """Episodes per agent for the Q estimates, from the evaluation's first start states."""
    animation: str = "pendulums.gif"
    """File of the animation; .gif, or .mp4 if ffmpeg is installed."""
    part: Annotated[int | None, count(0)] = None
    """Which part of a sweep over the shapes of networks (policy/part-0, …)."""
    out: Path | None = None
    """Folder for the pictures; None: the run's own."""


@own_settings()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.render")
    folder = options.out or options.run_folder
    try:
        scene, wanted = make_scene(options)
        for name, data in draw_all(wanted, scene, options):
            write_whole(folder / name, data)
            print(folder / name)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: out is {folder}, but must be a folder that can be written: {error}", file=sys.stderr)
        return 2
    drawn = {*wanted, "film"} if "pendulums" in wanted else set(wanted)  # the pendulums are a film
    left_out = [picture for picture in WHY_NOT if picture not in drawn]
    if not options.only:
        for picture in left_out:
            print(f"left out: {picture}, because {scene.environment.env_id} {WHY_NOT[picture]}")
    return 0


def make_scene(options: Options) -> tuple[Scene, tuple[Picture, ...]]:
    """Checks the options, and returns what is drawn and the pictures that are wanted of it.

    Raises:
        ValueError: names the field, its value and the rule.
    """
    trained = load_trained(options.run_folder, options.part)
    look_where_it_was(options.run_folder)
    choose_renderer()
    config = trained.config
    environment = adapted(make(config.env_id, config.env_args), config.action_repeat)
    wanted = _wanted_pictures(options, environment)
    agents = _chosen_agents(options, trained)
    snapshots = tuple(trained.load(number, agents) for number in _chosen_snapshots(options, trained))
    return Scene(trained, environment, agents, snapshots, options.start, options.episodes), wanted


def _require_within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, but must be a whole number from {least} to {most}")


def _wanted_pictures(options: Options, environment: Environment) -> tuple[Picture, ...]:
    """Returns the pictures to draw: those that are named, or all that the environment allows."""
    can: list[Picture] = list(OF_PENDULUM) if environment.env_id == PENDULUM else []
    can += ["q_estimates"] if environment.outside is None else []
    can += ["film"] if environment.draw is not None or environment.outside is not None else []
    for picture in options.only:
        if picture not in can:
            raise ValueError(
                f"only is {' '.join(options.only)}, but must be of {', '.join(can)}: {options.run_folder} is of "
                f"{environment.env_id}, which {WHY_NOT[picture]}"
            )
    wanted = options.only or tuple(can)
    if "pendulums" in wanted:
        animation.require_encoder(options.animation)
    return tuple(dict.fromkeys(wanted))


def _chosen_agents(options: Options, trained: Trained) -> tuple[int, ...]:
    _require_within("first_agent", options.first_agent, 0, trained.num_agents - 1)
    there = [agent for agent in trained.finite_agents if agent >= options.first_agent]
    if not there:
        raise ValueError(f"first_agent is {options.first_agent}, but must be followed by one that has not diverged")
    if options.agents is not None:
        _require_within("agents", options.agents, 1, min(MAX_AGENTS, len(there)))
    return tuple(there[: options.agents or USUAL_AGENTS])


def _chosen_snapshots(options: Options, trained: Trained) -> Sequence[int]:
    """Returns the positions of the snapshots among those of the run."""
    there = [env_steps for env_steps, _ in trained.snapshots]
    if not options.snapshots:
        return sorted({0, len(there) // 2, len(there) - 1})
    if len(options.snapshots) > MAX_SNAPSHOTS or not set(options.snapshots) <= set(there):
        raise ValueError(
            f"snapshots is {' '.join(map(str, options.snapshots))}, but must be at most {MAX_SNAPSHOTS} of "
            f"{', '.join(map(str, there))}"
        )
    return [there.index(env_steps) for env_steps in dict.fromkeys(options.snapshots)]


def draw_all(pictures: Sequence[Picture], scene: Scene, options: Options) -> list[tuple[str, bytes]]:
    """Returns the file names and the bytes of pictures, and shows on a terminal how many are left, and for how long."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    total = sum(len(scene.snapshots) if picture == "film" else 1 for picture in pictures)
    drawn = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("pictures", total=total)
        for picture in pictures:
            progress.update(task, description=f"drawing {picture}")
            drawn.append(draw(picture, scene, options, partial(progress.advance, task)))
    return drawn


def draw(picture: Picture, scene: Scene, options: Options, advance: Callable[[], None]) -> tuple[str, bytes]:
    """Returns the file name and the bytes of a picture; calls `advance` after it, or after each snapshot of a film."""
    if picture == "film":
        return "film.gif", draw_film(scene, advance)
    if picture == "pendulums":
        named = options.animation, draw_pendulums(scene, Path(options.animation).suffix)
    elif picture == "state_plane":
        named = "state_plane.png", draw_state_plane(scene)
    else:
        named = "q_estimates.png", draw_q_estimates(scene)
    advance()
    return named


if __name__ == "__main__":
    endure()
    sys.exit(main())
