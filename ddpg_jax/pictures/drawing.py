"""The pictures of a finished run: what its agents do and expect, at several snapshots of their training."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments import optimum
from ddpg_jax.pictures import animation, trajectories, value_plots
from ddpg_jax.pictures.snapshots import Snapshot, Trained
from ddpg_jax.pictures.trajectories import Trajectories

OPTIMUM_POINTS = (400, 401)
"""Points in angle and velocity at which the optimum is computed."""

PLANE_POINTS = (201, 161)
"""Points in angle and velocity at which policies and values are drawn."""


@dataclass(frozen=True)
class Scene:
    """The n agents that are drawn, and the snapshots of their training at which they are drawn."""

    trained: Trained
    environment: Environment
    agents: tuple[int, ...]
    """[n] their numbers in the run."""
    snapshots: tuple[Snapshot, ...]
    start: int | None
    """The evaluation's start state that all pendulums begin in; None: the first agent in the first, and so on."""
    episodes: int
    """Episodes of each agent behind the Q estimates, from the evaluation's first start states."""

    @property
    def discounts(self) -> np.ndarray:
        """[n] gamma of each agent."""
        return self.trained.discounts[list(self.agents)]

    @property
    def training_limit(self) -> int:
        """Steps after which training truncates an episode."""
        return min(self.environment.max_steps, self.trained.config.max_episode_steps or self.environment.max_steps)

    @cached_property
    def tests(self) -> list[Trajectories]:
        """Episodes at each snapshot, of all agents from the same start states, long enough for discounted returns."""
        starts = self.starts(np.tile(np.arange(self.episodes), (len(self.agents), 1)))
        beyond = 0 if self.trained.config.time_limit_terminal else max(map(trajectories.foresight, self.discounts))
        return self.play(starts, max(self.environment.max_steps, self.training_limit + beyond))

    def play(self, starts: Any, num_steps: int) -> list[Trajectories]:
        """Returns greedy episodes at each snapshot.

        Args:
            starts: environment states and observations with leading axes [n, S].
            num_steps: the length of all episodes.
        """
        return [
            trajectories.play(
                snapshot,
                starts,
                environment=self.environment,
                algorithm=self.trained.algorithm,
                num_steps=num_steps,
            )
            for snapshot in self.snapshots
        ]

    def starts(self, numbers: np.ndarray) -> tuple[Any, jax.Array]:
        """Returns the evaluation's start states with the numbers [n, S]: states and observations [n, S, ...]."""
        all_starts = self.environment.evaluation_starts(int(numbers.max()) + 1)
        return jax.tree.map(lambda leaf: leaf[numbers], all_starts)


def draw_pendulums(scene: Scene, suffix: str) -> bytes:
    """Draws the agents in motion: a panel for each snapshot, in all of them from the same start states.

    Args:
        scene: of Pendulum-v1.
        suffix: ".gif" or ".mp4".

    Returns:
        The bytes of the animation.
    """
    num_agents = len(scene.agents)
    numbers = np.arange(num_agents) if scene.start is None else np.full(num_agents, scene.start)
    played = scene.play(scene.starts(numbers[:, None]), scene.environment.max_steps)
    optimal = np.mean(np.asarray(scene.environment.optimal_returns)[numbers])
    panels = [
        animation.Panel(
            title=_when(snapshot),
            subtitle=f"{_mean_return(scene, episodes)} (optimum {_as_integer(optimal)})",
            angle=np.asarray(episodes.state.theta)[:, :, 0],
            torque=np.asarray(episodes.action)[:, :, 0, 0] / scene.environment.high[0],
        )
        for snapshot, episodes in zip(scene.snapshots, played, strict=True)
    ]
    return animation.encode(animation.draw(panels), suffix)


def _when(snapshot: Snapshot) -> str:
    return f"after {snapshot.env_steps:,} environment steps" if snapshot.env_steps else "before training"


def _mean_return(scene: Scene, episodes: Trajectories) -> str:
    returns = trajectories.returns(episodes, scene.environment.max_steps)
    return f"{'mean ' if returns.size > 1 else ''}return {_as_integer(returns.mean())}"


def _as_integer(value: float) -> str:
    return f"{value:,.0f}".replace("-", "−")


def draw_state_plane(scene: Scene) -> bytes:
    """Draws torque and value of the median agent at the last snapshot, next to those of the optimum for its discount.

    Args:
        scene: of Pendulum-v1.

    Returns:
        The bytes of a PNG.
    """
    returns = trajectories.returns(scene.tests[-1], scene.environment.max_steps).mean(axis=1)
    index = int(np.argsort(returns)[len(returns) // 2])
    discount = float(scene.discounts[index])
    title = (
        f"{scene.trained.title}: policy and value {_when(scene.snapshots[-1])}\n"
        "line: an episode from hanging at rest (dot)"
    )
    value_label = f"discounted return (γ = {discount:g})" if discount < 1 else f"return of {optimum.HORIZON} steps"
    return value_plots.state_plane(title, value_label, [learned_plane(scene, index), optimal_plane(discount)])


def learned_plane(scene: Scene, index: int) -> value_plots.Plane:
    """Returns the policy and the values of an agent at the last snapshot, over angle and velocity."""
    algorithm, snapshot = scene.trained.algorithm, scene.snapshots[-1]
    actor, critic = jax.tree.map(lambda leaf: leaf[index], (snapshot.actors, snapshot.critics))

    def torque_at(angle: jax.Array, velocity: jax.Array) -> jax.Array:
        return jnp.asarray(algorithm.actor.apply(actor, optimum.observe(angle, velocity)))[:, 0]

    @jax.jit
    def follow(angle: jax.Array, velocity: jax.Array) -> tuple[jax.Array, jax.Array]:
        def forward(state: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, Any]:
            return optimum.step(*state, torque_at(*state))[:2], state

        return jax.lax.scan(forward, (angle, velocity), length=optimum.HORIZON)[1]

    points = _plane_points()
    torque = torque_at(*points)
    value = algorithm.action_value(
        jnp.asarray(algorithm.critic.apply(critic, optimum.observe(*points), torque[:, None]))
    )
    title = f"agent {scene.agents[index]} (median return): μ(s) and Q(s, μ(s))"
    return _plane_of(title, torque, value, follow(*_hanging_at_rest()))


def optimal_plane(discount: float) -> value_plots.Plane:
    """Returns the optimal policy and its values, over angle and velocity."""
    points = _plane_points()
    if discount < 1:
        first = after = optimum.infinite_horizon(OPTIMUM_POINTS, discount)
    else:
        first, after = optimum.finite_horizon(OPTIMUM_POINTS)
    torque = optimum.greedy_torque(after if after.ndim == 2 else after[0], *points, discount)
    path = optimum.follow(after, *_hanging_at_rest(), discount)[:2]
    return _plane_of("optimum, by dynamic programming", torque, optimum.interpolate(first, *points), path)


def _plane_points() -> tuple[jax.Array, jax.Array]:
    """Returns angles (rad) and velocities (rad/s) of all points that are drawn."""
    angle, velocity = jnp.meshgrid(
        jnp.linspace(-jnp.pi, jnp.pi, PLANE_POINTS[0]),
        jnp.linspace(-optimum.MAX_SPEED, optimum.MAX_SPEED, PLANE_POINTS[1]),
        indexing="ij",
    )
    return angle.ravel(), velocity.ravel()


def _hanging_at_rest() -> tuple[jax.Array, jax.Array]:
    return jnp.full(1, jnp.pi, jnp.float32), jnp.zeros(1, jnp.float32)


def _plane_of(title: str, torque: jax.Array, value: jax.Array, path: tuple[jax.Array, jax.Array]) -> value_plots.Plane:
    angle, velocity = (np.asarray(x)[:, 0] for x in path)
    return value_plots.Plane(title, np.reshape(torque, PLANE_POINTS), np.reshape(value, PLANE_POINTS), angle, velocity)


def draw_q_estimates(scene: Scene) -> bytes:
    """Draws what the critics expected in greedy episodes against the returns that followed, at each snapshot.

    Returns:
        The bytes of a PNG.
    """
    config = scene.trained.config
    panels = []
    for snapshot, tests in zip(scene.snapshots, scene.tests, strict=True):
        estimate, observed = trajectories.estimates_and_returns(
            tests, scene.discounts, max_steps=scene.training_limit, time_limit_terminal=config.time_limit_terminal
        )
        panels.append(value_plots.Estimates(_when(snapshot), estimate, observed))
    gammas = ", ".join(f"{gamma:g}" for gamma in np.unique(scene.discounts))
    sample = f"{_count(len(scene.agents), 'agent')}, {_count(scene.episodes, 'greedy episode')} each"
    title = f"{scene.trained.title}: what critics expect and what follows ({sample})"
    return value_plots.q_estimates(title, f"discounted return that followed (γ = {gammas})", panels)


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'s' * (num != 1)}"
