"""The pictures of a finished run: what its agents do and expect, at several snapshots of training."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.evaluation import Starts
from ddpg_jax.environments import optimum, pendulum
from ddpg_jax.environments.arguments import parse
from ddpg_jax.environments.task import Task
from ddpg_jax.pictures import animation, trajectories, value_plots
from ddpg_jax.pictures.snapshots import Snapshot, Trained
from ddpg_jax.pictures.trajectories import Steps, Trajectories

OPTIMUM_POINTS, PLANE_POINTS = (400, 401), (201, 161)
"""Points in angle and velocity at which the optimum is computed, and at which policies and values are drawn."""


@dataclass(frozen=True)
class Scene:
    """The n agents that are drawn, and the snapshots of training at which they are drawn."""

    trained: Trained
    task: Task
    agents: tuple[int, ...]  # [n] their numbers in the run
    snapshots: tuple[Snapshot, ...]
    start: int | None = None  # start state of all shown episodes; None: the first agent begins in the first, and so on
    episodes: int = 0  # of each agent behind the Q estimates, from the evaluation's first start states

    @property
    def shown(self) -> np.ndarray:
        """[n] the evaluation's start states of the agents' shown episodes."""
        return np.arange(len(self.agents)) if self.start is None else np.full(len(self.agents), self.start)

    @property
    def training_limit(self) -> int:
        """Steps after which training truncates an episode."""
        limit = self.task.environment.max_steps
        return min(limit, self.trained.config.max_episode_steps or limit)

    @cached_property
    def played(self) -> list[Trajectories]:
        """Greedy episodes at each snapshot: E `episodes`; one that is shown; on Pendulum, one from hanging at rest."""
        environment, config = self.task.environment, self.trained.config
        is_pendulum = config.env_id == pendulum.ENV_ID
        numbers = np.array([[*range(self.episodes), shown] for shown in self.shown])
        starts = jax.tree.map(lambda leaf: leaf[numbers], self.task.evaluation_starts(int(numbers.max()) + 1))
        beyond = 0 if config.time_limit_terminal or not self.episodes else trajectories.foresight(config.gamma)
        play = partial(
            trajectories.play,
            starts=_with_hanging(starts) if is_pendulum else starts,
            environment=environment,
            algorithm=self.trained.algorithm,
            num_steps=max(environment.max_steps, self.training_limit + beyond),
            num_shown=2 if is_pendulum else 1,
            keep_state=self.task.draw is not None,
        )
        return [play(snapshot) for snapshot in self.snapshots]

    def tests(self, played: Trajectories) -> Steps:
        """Returns the steps [T, n, E] of the episodes behind the Q estimates."""
        return Steps(*(leaf[:, :, : self.episodes] for leaf in played.steps))


def _with_hanging(starts: Starts) -> Starts:
    """Returns Pendulum's start states [n, S], followed by the state that hangs at rest [n, S + 1]."""
    last = jax.tree.map(lambda leaf: leaf[:, -1:], starts)
    angle, rest = jnp.full_like(last.state.theta, jnp.pi), jnp.zeros_like(last.state.theta)
    state = last.state.replace(theta=angle, theta_dot=rest)
    hanging = last._replace(state=state, observation=optimum.observe(angle, rest))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), starts, hanging)


def draw_pendulums(scene: Scene) -> bytes:
    """Draws the agents of gymnax's Pendulum-v1 in motion, a panel per snapshot; returns the bytes of a GIF."""
    config, max_torque = scene.trained.config, scene.task.environment.high[0]
    seconds = float(parse(config.env_args).get("dt", optimum.TIME_STEP)) * config.action_repeat
    frames = animation.pendulums(pendulum_panels(scene), step_seconds=seconds, max_torque=max_torque)
    return animation.gif(frames, seconds, animation.palette())


def pendulum_panels(scene: Scene) -> list[animation.Panel]:
    """Returns what each snapshot's agents did in their shown episodes, and their mean return next to the optimum's."""
    environment, num_steps = scene.task.environment, scene.task.environment.max_steps
    optimal = scene.task.optimum(int(scene.shown.max()) + 1)
    best = "" if optimal is None else f" (optimum {_rounded(np.mean(optimal[scene.shown]))})"
    panels = []
    for snapshot, played in zip(scene.snapshots, scene.played, strict=True):
        score = trajectories.returns(played.steps, num_steps)[:, scene.episodes].mean()
        subtitle = f"{'mean ' if len(scene.agents) > 1 else ''}return {_rounded(score)}{best}"
        angle = _angle_and_velocity(played.observation[:num_steps, :, 0])[0]
        torque = np.asarray(played.action)[:num_steps, :, 0, 0] / environment.high[0]
        panels.append(animation.Panel(describe(snapshot), subtitle, angle, torque))
    return panels


def describe(snapshot: Snapshot) -> str:
    """Returns when a snapshot was taken."""
    return f"after {snapshot.env_steps:,} environment steps" if snapshot.env_steps else "before training"


def _rounded(value: float) -> str:
    return f"{value:,.0f}".replace("-", "−")


def _angle_and_velocity(observation: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the angles [T, ...] (rad, not wrapped) and velocities [T, ...] of Pendulum's observations [T, ..., 3]."""
    cosine, sine, velocity = np.moveaxis(np.asarray(observation, np.float64), -1, 0)
    return np.unwrap(np.arctan2(sine, cosine), axis=0), velocity


def draw_state_plane(scene: Scene) -> bytes:
    """Draws torque and value of Pendulum's median agent at the last snapshot, next to the known optimum's, as a PNG."""
    environment, discount = scene.task.environment, scene.trained.config.gamma
    scores = trajectories.returns(scene.tests(scene.played[-1]), environment.max_steps).mean(axis=1)
    index = int(np.argsort(scores)[len(scores) // 2])
    title = f"{scene.trained.title}: policy and value {describe(scene.snapshots[-1])}"
    title += "\nline: an episode from hanging at rest (dot)"
    label = f"discounted return (γ = {discount:g})" if discount < 1 else f"return of {optimum.HORIZON} steps"
    planes = [learned_plane(scene, index)]
    if scene.task.optimal_returns is not None:
        planes.append(optimal_plane(discount))
    return value_plots.state_plane(title, label, planes, environment.high[0])


def learned_plane(scene: Scene, index: int) -> value_plots.Plane:
    """Returns the policy and the values of an agent at the last snapshot, over angle and velocity."""
    algorithm, snapshot = scene.trained.algorithm, scene.snapshots[-1]
    actor, critic = jax.tree.map(lambda leaf: leaf[index], (snapshot.actors, snapshot.critics))

    @jax.jit
    def policy_and_value(observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        action = jnp.asarray(algorithm.actor.apply(actor, observation))
        return action[:, 0], algorithm.action_value(jnp.asarray(algorithm.critic.apply(critic, observation, action)))

    torque, value = policy_and_value(optimum.observe(*_plane_points()))
    path = _angle_and_velocity(scene.played[-1].observation[: scene.task.environment.max_steps, index, 1])
    title = f"agent {scene.agents[index]} (median return): μ(s) and Q(s, μ(s))"
    return _plane(title, torque, value / scene.trained.config.reward_scale, path)


def optimal_plane(discount: float) -> value_plots.Plane:
    """Returns the optimal policy and its values, over angle and velocity."""
    points = _plane_points()
    if discount < 1:
        first = after = optimum.infinite_horizon(OPTIMUM_POINTS, discount)
    else:
        first, after = optimum.finite_horizon(OPTIMUM_POINTS)
    torque = optimum.greedy_torque(after if after.ndim == 2 else after[0], *points, discount)
    hanging = jnp.full(1, jnp.pi, jnp.float32), jnp.zeros(1, jnp.float32)
    angle, velocity = (np.asarray(values)[:, 0] for values in optimum.follow(after, *hanging, discount)[:2])
    return _plane("optimum, by dynamic programming", torque, optimum.interpolate(first, *points), (angle, velocity))


def _plane_points() -> tuple[jax.Array, jax.Array]:
    """Returns angles (rad) and velocities (rad/s) of all points that are drawn."""
    angles = jnp.linspace(-jnp.pi, jnp.pi, PLANE_POINTS[0])
    velocities = jnp.linspace(-optimum.MAX_SPEED, optimum.MAX_SPEED, PLANE_POINTS[1])
    angle, velocity = jnp.meshgrid(angles, velocities, indexing="ij")
    return angle.ravel(), velocity.ravel()


def _plane(title: str, torque: jax.Array, value: jax.Array, path: tuple[np.ndarray, np.ndarray]) -> value_plots.Plane:
    return value_plots.Plane(title, np.reshape(torque, PLANE_POINTS), np.reshape(value, PLANE_POINTS), *path)


def draw_q_estimates(scene: Scene) -> bytes:
    """Draws what critics expected in greedy episodes against the returns that followed, at each snapshot, as a PNG."""
    config, panels, agents, episodes = scene.trained.config, [], len(scene.agents), scene.episodes
    limits: Any = {"max_steps": scene.training_limit, "time_limit_terminal": config.time_limit_terminal}
    for snapshot, played in zip(scene.snapshots, scene.played, strict=True):
        estimate, observed = trajectories.estimates_and_returns(scene.tests(played), config.gamma, **limits)
        panels.append(value_plots.Estimates(describe(snapshot), estimate / config.reward_scale, observed))
    sample = f"{agents:,} agent{'s' * (agents != 1)}, {episodes:,} greedy episode{'s' * (episodes != 1)} each"
    title = f"{scene.trained.title}: what critics expect and what follows ({sample})"
    return value_plots.q_estimates(title, f"discounted return that followed (γ = {config.gamma:g})", panels)
