"""`python -m ddpg_jax.render RUN_FOLDER`: pictures of what the agents of a finished run have learned."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax import command_line
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments import optimum
from ddpg_jax.environments.pendulum import NUM_STARTS as NUM_PENDULUM_STARTS
from ddpg_jax.environments.registry import make
from ddpg_jax.pictures import animation, trajectories, value_plots
from ddpg_jax.pictures.snapshots import Moment, Trained, load_trained
from ddpg_jax.pictures.trajectories import Trajectories
from ddpg_jax.processes.files import write_whole
from ddpg_jax.processes.output import endure

PENDULUM = "Pendulum-v1"
USUAL_AGENTS, MAX_AGENTS = 16, 100
MAX_MOMENTS = 5

TABLE = (400, 401)
"""Points of the optimum's table in angle and velocity."""

PLANE = (201, 161)
"""Points in angle and velocity at which policies and values are drawn."""

Picture = Literal["pendulums", "state_plane", "q_estimates"]
PICTURES: tuple[Picture, ...] = ("pendulums", "state_plane", "q_estimates")


@dataclass(frozen=True)
class Options:
    """Draws a finished run: its agents in motion at several moments of training (pendulums.gif), policy and value of
    one of them beside the optimum's (state_plane.png), and Q estimates against the returns that followed
    (q_estimates.png). The first two are of Pendulum-v1 alone.
    """

    run_folder: Annotated[Path, command_line.POSITIONAL]
    """Folder of a finished run."""
    only: tuple[Picture, ...] = ()
    """The pictures to draw; none named: all that the environment allows."""
    agents: int | None = None
    """Number of agents in the pictures, from 1 to 100; None: 16, or all if there are fewer. Diverged ones are not
    counted. Of these, the state plane shows the one with the median return."""
    first_agent: int = 0
    """Number of the first of them."""
    moments: tuple[int, ...] = ()
    """Moments of training, at most five of those in snapshots/, by their environment steps; none named: the first,
    the middle and the last."""
    start: int | None = None
    """Number of the evaluation's start state that all pendulums begin in; None: the first agent in the first, …"""
    episodes: int = 16
    """Episodes of each agent behind the Q estimates, from the evaluation's first start states; from 1 to 512."""
    animation: str = "pendulums.gif"
    """File of the moving picture; .gif, or .mp4 where ffmpeg is installed."""
    part: int | None = None
    """Of a sweep over what shapes the networks: which of its parts (policy/part-0, …)."""
    out: Path | None = None
    """Folder that the pictures go into; None: the run's own."""


@dataclass(frozen=True)
class Scene:
    """The agents that are drawn, at the moments at which they are."""

    options: Options
    trained: Trained
    environment: Environment
    agents: tuple[int, ...]
    moments: list[Moment] = field(default_factory=list)

    @property
    def discounts(self) -> np.ndarray:
        """[n] of the agents."""
        return self.trained.discounts[list(self.agents)]

    @property
    def training_limit(self) -> int:
        """Steps after which training cuts an episode off."""
        return min(self.environment.max_steps, self.trained.config.max_episode_steps or self.environment.max_steps)

    @cached_property
    def tests(self) -> list[Trajectories]:
        """At each moment episodes of all agents from the same start states, long enough for what follows them."""
        starts = self.starts(np.tile(np.arange(self.options.episodes), (len(self.agents), 1)))
        beyond = 0 if self.trained.config.time_limit_terminal else max(map(trajectories.foresight, self.discounts))
        return self.play(starts, max(self.environment.max_steps, self.training_limit + beyond))

    def play(self, starts: Any, num_steps: int) -> list[Trajectories]:
        """Episodes at each moment."""
        return [
            trajectories.play(
                moment,
                starts,
                environment=self.environment,
                algorithm=self.trained.algorithm,
                num_steps=num_steps,
            )
            for moment in self.moments
        ]

    def starts(self, numbers: np.ndarray) -> tuple[Any, jax.Array]:
        """Those of the evaluation's start states that have the numbers [n, S]."""
        all_starts = self.environment.evaluation_starts(int(numbers.max()) + 1)
        return jax.tree.map(lambda leaf: leaf[numbers], all_starts)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = command_line.parse(Options, arguments, "python -m ddpg_jax.render")
    folder = options.out or options.run_folder
    try:
        scene, wanted = prepare(options)
        for name, data in [draw(picture, scene) for picture in wanted]:
            write_whole(folder / name, data)
            print(folder / name)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: out is {folder}, but must be a folder that can be written: {error}", file=sys.stderr)
        return 2
    left_out = [picture for picture in PICTURES if picture not in wanted]
    if left_out and not options.only:
        print(f"left out, because they are of {PENDULUM} alone: {', '.join(left_out)}")
    return 0


def prepare(options: Options) -> tuple[Scene, tuple[Picture, ...]]:
    """What is drawn, and which pictures of it, once everything has been checked.

    Raises:
        ValueError: names the field, its value and the rule.
    """
    _within("episodes", options.episodes, 1, NUM_PENDULUM_STARTS)
    if options.start is not None:
        _within("start", options.start, 0, NUM_PENDULUM_STARTS - 1)
    trained = load_trained(options.run_folder, options.part)
    environment = make(trained.config.env_id)
    wanted = options.only or (PICTURES if environment.env_id == PENDULUM else PICTURES[2:])
    if environment.env_id != PENDULUM and set(wanted) != {"q_estimates"}:
        raise ValueError(f"only is {' '.join(wanted)}, but must be q_estimates: the others are of {PENDULUM} alone, "
                         f"and {options.run_folder} is of {environment.env_id}")  # fmt: skip
    if "pendulums" in wanted:
        animation.require_encoder(options.animation)
    scene = Scene(options, trained, environment, _chosen_agents(options, trained))
    for number in _chosen_moments(options, trained):
        scene.moments.append(trained.load(number, scene.agents))
    return scene, tuple(dict.fromkeys(wanted))


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, but must be a whole number from {least} to {most}")


def _chosen_agents(options: Options, trained: Trained) -> tuple[int, ...]:
    _within("first_agent", options.first_agent, 0, trained.num_agents - 1)
    there = [agent for agent in trained.sound_agents if agent >= options.first_agent]
    if not there:
        raise ValueError(f"first_agent is {options.first_agent}, but must be followed by one that has not diverged")
    if options.agents is not None:
        _within("agents", options.agents, 1, min(MAX_AGENTS, len(there)))
    return tuple(there[: options.agents or USUAL_AGENTS])


def _chosen_moments(options: Options, trained: Trained) -> Sequence[int]:
    there = [env_steps for env_steps, _ in trained.moments]
    if not options.moments:
        return sorted({0, len(there) // 2, len(there) - 1})
    if len(options.moments) > MAX_MOMENTS or not set(options.moments) <= set(there):
        raise ValueError(f"moments is {' '.join(map(str, options.moments))}, but must be at most {MAX_MOMENTS} of "
                         f"{', '.join(map(str, there))}")  # fmt: skip
    return [there.index(env_steps) for env_steps in dict.fromkeys(options.moments)]


def draw(picture: Picture, scene: Scene) -> tuple[str, bytes]:
    """File name and bytes of a picture."""
    if picture == "pendulums":
        return scene.options.animation, draw_pendulums(scene)
    if picture == "state_plane":
        return "state_plane.png", draw_state_plane(scene)
    return "q_estimates.png", draw_q_estimates(scene)


def draw_pendulums(scene: Scene) -> bytes:
    """The agents in motion: a panel for each moment, in all of them from the same start states."""
    start = scene.options.start
    numbers = np.arange(len(scene.agents)) if start is None else np.full(len(scene.agents), start)
    played = scene.play(scene.starts(numbers[:, None]), scene.environment.max_steps)
    optimal = np.mean(np.asarray(scene.environment.optimal_returns)[numbers])
    panels = [
        animation.Panel(
            title=_when(moment),
            subtitle=f"{_mean_return(scene, episodes)} (optimum {_number(optimal)})",
            angle=np.asarray(episodes.state.theta)[:, :, 0],
            torque=np.asarray(episodes.action)[:, :, 0, 0] / scene.environment.high[0],
        )
        for moment, episodes in zip(scene.moments, played, strict=True)
    ]
    return animation.encode(animation.draw(panels), Path(scene.options.animation).suffix)


def _when(moment: Moment) -> str:
    return f"after {moment.env_steps:,} environment steps" if moment.env_steps else "before training"


def _count(num: int, what: str) -> str:
    return f"{num:,} {what}{'s' * (num != 1)}"


def _mean_return(scene: Scene, episodes: Trajectories) -> str:
    returns = trajectories.returns(episodes, scene.environment.max_steps)
    return f"{'mean ' if returns.size > 1 else ''}return {_number(returns.mean())}"


def _number(value: float) -> str:
    return f"{value:,.0f}".replace("-", "−")


def draw_state_plane(scene: Scene) -> bytes:
    """Torque and value of the median agent at the last moment, beside those of the optimum for its discount."""
    returns = trajectories.returns(scene.tests[-1], scene.environment.max_steps).mean(axis=1)
    index = int(np.argsort(returns)[len(returns) // 2])
    discount = float(scene.discounts[index])
    learned = _learned_plane(scene, index)
    best = _optimal_plane(discount)
    title = (
        f"{scene.trained.title}: policy and value {_when(scene.moments[-1])}\n"
        "line: an episode from hanging at rest (dot)"
    )
    value_label = f"discounted return (γ = {discount:g})" if discount < 1 else f"return of {optimum.HORIZON} steps"
    return value_plots.state_plane(title, value_label, [learned, best])


def _points() -> tuple[jax.Array, jax.Array]:
    """Angles and velocities of all points that are drawn."""
    angle, velocity = jnp.meshgrid(
        jnp.linspace(-jnp.pi, jnp.pi, PLANE[0]),
        jnp.linspace(-optimum.MAX_SPEED, optimum.MAX_SPEED, PLANE[1]),
        indexing="ij",
    )
    return angle.ravel(), velocity.ravel()


def _learned_plane(scene: Scene, index: int) -> value_plots.Plane:
    algorithm, moment = scene.trained.algorithm, scene.moments[-1]
    actor, critic = jax.tree.map(lambda leaf: leaf[index], (moment.actors, moment.critics))

    def torque_of(angle: jax.Array, velocity: jax.Array) -> jax.Array:
        return jnp.asarray(algorithm.actor.apply(actor, _observation(angle, velocity)))[:, 0]

    @jax.jit
    def follow(angle: jax.Array, velocity: jax.Array) -> tuple[jax.Array, jax.Array]:
        def forward(state: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, Any]:
            return optimum.step(*state, torque_of(*state))[:2], state

        return jax.lax.scan(forward, (angle, velocity), length=optimum.HORIZON)[1]

    points = _points()
    torque = torque_of(*points)
    value = algorithm.critic.apply(critic, _observation(*points), torque[:, None])
    path = follow(*_hanging())
    return _plane(f"agent {scene.agents[index]} (median return): μ(s) and Q(s, μ(s))", torque, jnp.asarray(value), path)


def _optimal_plane(discount: float) -> value_plots.Plane:
    points = _points()
    if discount < 1:
        first = after = optimum.infinite_horizon(TABLE, discount)
    else:
        first, after = optimum.finite_horizon(TABLE)
    torque = optimum.greedy_torque(after if after.ndim == 2 else after[0], *points, discount)
    path = optimum.follow(after, *_hanging(), discount)[:2]
    return _plane("optimum, by dynamic programming", torque, optimum.interpolate(first, *points), path)


def _hanging() -> tuple[jax.Array, jax.Array]:
    return jnp.full(1, jnp.pi, jnp.float32), jnp.zeros(1, jnp.float32)


def _observation(angle: jax.Array, velocity: jax.Array) -> jax.Array:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), velocity], axis=-1)


def _plane(title: str, torque: jax.Array, value: jax.Array, path: tuple[jax.Array, jax.Array]) -> value_plots.Plane:
    angle, velocity = (np.asarray(x)[:, 0] for x in path)
    return value_plots.Plane(title, np.reshape(torque, PLANE), np.reshape(value, PLANE), angle, velocity)


def draw_q_estimates(scene: Scene) -> bytes:
    """What the critics expected in greedy episodes against what followed, at each moment."""
    config = scene.trained.config
    panels = []
    for moment, tests in zip(scene.moments, scene.tests, strict=True):
        estimate, observed = trajectories.estimates_and_returns(
            tests, scene.discounts, max_steps=scene.training_limit, time_limit_terminal=config.time_limit_terminal
        )
        panels.append(value_plots.Estimates(_when(moment), estimate, observed))
    gammas = ", ".join(f"{gamma:g}" for gamma in np.unique(scene.discounts))
    sample = f"{_count(len(scene.agents), 'agent')}, {_count(scene.options.episodes, 'greedy episode')} each"
    title = f"{scene.trained.title}: what critics expect and what follows ({sample})"
    return value_plots.q_estimates(title, f"discounted return that followed (γ = {gammas})", panels)


if __name__ == "__main__":
    endure()
    sys.exit(main())
