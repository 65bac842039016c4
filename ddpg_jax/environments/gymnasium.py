"""Environments of Gymnasium, which step on the host; the only file that knows the library."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode

from ddpg_jax.algorithm import outside
from ddpg_jax.algorithm.environment import Environment, HostSteps, Step
from ddpg_jax.environments import pendulum


def names() -> tuple[str, ...]:
    """Returns the newest version of each environment with continuous actions that can be made here."""
    found: dict[str, str] = {}
    for spec in gymnasium.registry.values():
        if spec.namespace is None and isinstance(spec.entry_point, str) and "gymnasium.envs" in spec.entry_point:
            found[spec.name] = max(
                spec.id, found.get(spec.name, ""), key=lambda name: int(name.rpartition("-v")[2] or 0)
            )
    return tuple(sorted(name for name in found.values() if _is_continuous(name)))


def _is_continuous(name: str) -> bool:
    try:
        return isinstance(gymnasium.make(name).action_space, gymnasium.spaces.Box)
    except Exception:  # its library is not installed
        return False


def make(name: str, env_id: str, arguments: Mapping[str, Any]) -> Environment:
    """Returns an environment of Gymnasium.

    Args:
        name: Gymnasium's, such as "HalfCheetah-v5".
        env_id: the name in messages and files.
        arguments: of `gymnasium.make`.

    Raises:
        ValueError: if there is no such environment, its actions are not bounded, or its episodes have no time limit.
    """
    task = Task(name, tuple(sorted(arguments.items())))
    try:
        env = task.make()
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        raise ValueError(f"env_id is {env_id!r}, but must be an environment of Gymnasium here: {error}") from error
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(f"env_id is {env_id!r}, but must have continuous actions; its actions are {space}")
    max_steps = None if env.spec is None else env.spec.max_episode_steps
    if max_steps is None:
        raise ValueError(f"env_id is {env_id!r}, but must have a time limit: --env-args max_episode_steps=1000")
    size = math.prod(env.observation_space.shape or ())
    known: dict[str, Any] = {}
    if name == pendulum.ENV_ID and not arguments:
        known = {"starts": pendulum_starts, **pendulum.optimum()}
    return Environment(
        env_id=env_id,
        observation_size=size,
        low=tuple(np.ravel(space.low).tolist()),
        high=tuple(np.ravel(space.high).tolist()),
        max_steps=max_steps,
        reset=partial(outside.reset, observation_size=size, action_size=math.prod(space.shape)),
        step=_step,
        outside=task,
        **known,
    )


def _step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Step]:
    raise NotImplementedError("an environment of Gymnasium steps on the host")


def pendulum_starts(num: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the start states of Pendulum's evaluation as angles (rad) and velocities (rad/s), with observations."""
    theta, velocity = pendulum.start_states(num)
    return {"state": np.stack([theta, velocity], axis=1)}, np.stack([np.cos(theta), np.sin(theta), velocity], axis=1)


@dataclass(frozen=True)
class Task:
    """An environment of Gymnasium as `gymnasium.make` is told (see `Outside`)."""

    name: str
    arguments: tuple[tuple[str, Any], ...]
    action_repeat: int = 1

    def make(self, **more: Any) -> gymnasium.Env:
        """Returns one environment, with observations that are vectors of numbers."""
        # Gymnasium's own checks of each step cost as much as Pendulum itself.
        env = gymnasium.make(self.name, disable_env_checker=True, **{**dict(self.arguments), **more})
        if self.action_repeat > 1:
            env = Repeating(env, self.action_repeat)
        space = env.observation_space
        is_vector = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
        return env if is_vector else gymnasium.wrappers.FlattenObservation(env)

    def film(self, act: Callable[[np.ndarray], np.ndarray], start: Any, every: int) -> list[np.ndarray]:
        """Draws an episode from one start state [1]; returns every n-th frame [H, W, 3]. `act`: [O] -> [A]."""
        env: Any = self.make(render_mode="rgb_array")
        observation, ended, frames = _begin(env, _states_of(start)[0]), False, []
        steps = itertools.count()
        while True:
            if next(steps) % every == 0:
                frames.append(env.render())
            if ended:
                env.close()
                return frames
            action = act(np.asarray(observation, np.float32))
            observation, _, terminated, truncated, _ = env.step(action.reshape(env.action_space.shape))
            ended = terminated or truncated

    def repeating(self, times: int) -> "Task":
        """Returns the task in which every action is executed several times."""
        return replace(self, action_repeat=times)

    def environments(self, num: int, max_steps: int) -> "Environments":
        """Makes environments for training, whose episodes are cut off after `max_steps` actions."""
        return Environments(self, num, max_steps)

    def episodes(self) -> "Episodes":
        """Makes what evaluations run in."""
        return Episodes(self)


class Repeating(gymnasium.Wrapper):
    """Executes every action several times, until an episode ends, and adds the rewards up."""

    def __init__(self, env: gymnasium.Env, times: int) -> None:
        super().__init__(env)
        self._times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Returns the last observation, the sum of the rewards, and whether and why the episode ended."""
        total = 0.0
        for _ in range(self._times):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class Environments:
    """Environments side by side, each of which begins a new episode in the step that ends one."""

    def __init__(self, task: Task, num: int, max_steps: int) -> None:
        limit = {"max_episode_steps": max_steps * task.action_repeat}
        self._envs: Any = gymnasium.vector.SyncVectorEnv(
            [partial(task.make, **limit)] * num, autoreset_mode=AutoresetMode.SAME_STEP
        )

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Begins an episode in each of the n environments, by its seed; returns the observations [n, O]."""
        return np.asarray(self._envs.reset(seed=[int(seed) for seed in seeds])[0], np.float32)

    def step(self, actions: np.ndarray) -> HostSteps:
        """Executes the actions [n, A]."""
        shape = self._envs.action_space.shape
        observations, rewards, terminated, truncated, info = self._envs.step(actions.reshape(shape))
        last: Any = np.array(observations, np.float32)
        for index in np.flatnonzero(terminated | truncated):
            last[index] = info["final_obs"][index]
        return HostSteps(Step(last, rewards, terminated, truncated), np.asarray(observations, np.float32))


class Episodes:
    """Episodes for evaluation, each in an environment of its own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._envs: list[Any] = []
        self._seen: Any = None

    def begin(self, starts: Any, num_agents: int) -> np.ndarray:
        """Begins an episode from each of S start states for each agent; returns the observations [N, S, O]."""
        states = _states_of(starts)
        num = num_agents * len(states)
        self._envs += [self._task.make() for _ in range(num - len(self._envs))]
        seen = [_begin(env, states[i % len(states)]) for i, env in enumerate(self._envs[:num])]
        self._seen = np.asarray(seen, np.float32).reshape(num_agents, len(states), -1)
        return self._seen

    def step(self, actions: np.ndarray, alive: np.ndarray) -> Step:
        """Executes the actions [N, S, A] where an episode goes on (alive [N, S]); returns arrays [N, S, ...]."""
        shape, size = alive.shape, alive.size
        actions = actions.reshape(size, *self._envs[0].action_space.shape)
        observation = self._seen.reshape(size, -1).copy()
        reward, terminated, truncated = np.zeros(size), np.zeros(size, bool), np.zeros(size, bool)
        for i in np.flatnonzero(alive).tolist():
            observation[i], reward[i], terminated[i], truncated[i], _ = self._envs[i].step(actions[i])
        self._seen = observation.reshape(*shape, -1)
        ends: list[Any] = [each.reshape(shape) for each in (reward, terminated, truncated)]
        return Step(self._seen, *ends)


def _states_of(starts: Any) -> np.ndarray:
    """Returns start states [S, ...] of Pendulum, or seeds [S]."""
    return starts["state"] if isinstance(starts, dict) else np.asarray(starts.seed)


def _begin(env: gymnasium.Env, start: Any) -> np.ndarray:
    """Begins an episode by a seed [], or in a state of Pendulum [2], and returns its first observation."""
    if np.ndim(start) == 0:
        return env.reset(seed=int(start))[0]
    env.reset(seed=0)
    env.unwrapped.state = np.asarray(start, np.float64)  # type: ignore[attr-defined]
    return np.array([np.cos(start[0]), np.sin(start[0]), start[1]])
