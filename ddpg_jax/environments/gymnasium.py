"""Environments of Gymnasium, which step on the host; the only file that knows the library."""

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

from ddpg_jax.algorithm import host_env
from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey
from ddpg_jax.environments import pendulum
from ddpg_jax.environments.arguments import RefusedError, defaults_of, one_line, parse, refusing
from ddpg_jax.environments.host import HostEnvFailure
from ddpg_jax.environments.task import Task
from ddpg_jax.environments.user_env import look_in


def names() -> tuple[str, ...]:
    """Returns the newest version of each of the library's own environments with continuous actions that work here."""
    by_version = sorted(gymnasium.registry.values(), key=lambda spec: spec.version or 0)
    own = [spec for spec in by_version if spec.namespace is None and "gymnasium.envs" in str(spec.entry_point)]
    found = []
    for name in {spec.name: spec.id for spec in own}.values():
        with contextlib.suppress(Exception), _closing(gymnasium.make(name)) as env:  # its library may not be installed
            found += [name] * isinstance(env.action_space, spaces.Box)
    return tuple(sorted(found))


def has(name: str) -> bool:
    """Returns whether the library has an environment of that name."""
    return name in gymnasium.registry


def make(name: str, env_id: str, env_args: Sequence[str]) -> Task:
    """Returns an environment of Gymnasium, such as "HalfCheetah-v5" or "my_module:Mine-v0".

    Raises RefusedError if its actions are not continuous, its observations are not numbers, or it has no time limit.
    """
    made_by = GymnasiumEnv(env_id, name, tuple(env_args))
    with _closing(made_by.make_one()) as env:
        actions, observations = (getattr(env, f"{kind}_space", None) for kind in ("action", "observation"))
        max_steps = env.spec.max_episode_steps if env.spec else None
        has_frames = "rgb_array" in (env.metadata or {}).get("render_modes", ())
    if not isinstance(actions, spaces.Box) or not np.issubdtype(actions.dtype, np.floating):
        raise RefusedError(f"env_id is {env_id!r}, but must have continuous actions; its actions are {actions}")
    if not isinstance(observations, spaces.Space) or not observations.is_np_flattenable:
        raise RefusedError(f"env_id is {env_id!r}, but must observe a fixed number of numbers, not {observations}")
    if max_steps is None:
        raise RefusedError(f"env_id is {env_id!r}, but must have a time limit: --env-args max_episode_steps=1000")
    low, high = (tuple(np.ravel(bound).tolist()) for bound in (actions.low, actions.high))
    size, parts = spaces.flatdim(observations), tuple(_parts(observations))
    reset = _reset(size, len(low))
    environment = Environment(env_id, size, low, high, max_steps, reset, _step, host_env=made_by, cacheable=True)
    task = Task(
        environment,
        observation_parts=() if parts == (("observation", (size,)),) else parts,
        film_env=replace(made_by, is_drawn=True) if has_frames else None,
    )
    if name != pendulum.ENV_ID or env_args:
        return task
    return replace(task, starts=pendulum.starts_in_gymnasium, **pendulum.optimum())


def _defaults(name: str) -> dict[str, Any]:
    """Returns the default values of an environment's arguments; imports its module, also from the current folder."""
    module, _, bare_name = name.rpartition(":")
    if module:
        look_in(os.getcwd())
        importlib.import_module(module)
    spec = gymnasium.registry.get(bare_name)
    if spec is None or spec.entry_point is None:
        return {}
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    return {**defaults_of(creator), **spec.kwargs, "max_episode_steps": 1}


def _parts(space: spaces.Space, name: str = "") -> list[tuple[str, tuple[int, ...]]]:
    """Returns the names and shapes of the arrays of a space, in the order in which Gymnasium flattens them."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        shape = space.shape if isinstance(space, spaces.Box) else (spaces.flatdim(space),)
        return [(name or "observation", shape)]
    inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    return [part for key, each in inner for part in _parts(each, f"{name}.{key}" if name else str(key))]


@cache  # equal functions for equal environments, which then share compiled programs
def _reset(observation_size: int, action_size: int) -> Callable[[PRNGKey], tuple[State, jax.Array]]:
    return partial(host_env.reset, observation_size=observation_size, action_size=action_size)


def _step(key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
    raise ValueError("step is called in a compiled program, but must be called on the host: environment.host_env")


@dataclass(frozen=True)
class GymnasiumEnv:
    """An environment of Gymnasium by what `gymnasium.make` is given (a `HostEnv`)."""

    env_id: str
    name: str  # Gymnasium's own
    env_args: tuple[str, ...]  # words, which are parsed anew for each environment, because a list would be shared
    action_repeat: int = 1
    is_drawn: bool = False  # whether `render` returns frames

    def repeating(self, times: int) -> "GymnasiumEnv":
        """Returns the environment in which every action is executed `times` times and the rewards are added up."""
        return replace(self, action_repeat=times)

    def make(self, num: int, max_steps: int | None = None) -> "GymnasiumEnvs":
        """Makes environments whose episodes are cut off after `max_steps` actions; default: their own limit.

        Raises ValueError if one of them cannot be made; the others are then closed.
        """
        rule = "an environment of gymnasium that can be made here"
        with refusing(self.env_id, self.env_args, rule), contextlib.ExitStack() as stack:
            envs = [stack.enter_context(_closing(self.make_one(max_steps))) for _ in range(num)]
            return GymnasiumEnvs(self, envs, stack.pop_all())

    def make_one(self, max_steps: int | None = None) -> gymnasium.Env:
        """Makes one environment, whatever error that raises."""
        options = parse(self.env_args, _defaults(self.name))
        if max_steps is not None:
            options["max_episode_steps"] = max_steps * self.action_repeat
        if self.is_drawn:
            options["render_mode"] = "rgb_array"
        # Gymnasium's own checks of each step cost as much as Pendulum itself.
        return gymnasium.make(self.name, **{"disable_env_checker": True, **options})


class GymnasiumEnvs:
    """Environments of Gymnasium that step side by side (`HostEnvs`).

    What they return is copied before another environment runs. All methods but `close` raise HostEnvFailure if an
    environment raises an error or returns what cannot be used.
    """

    def __init__(self, made_by: GymnasiumEnv, envs: list[gymnasium.Env], to_close: contextlib.ExitStack) -> None:
        self._env_id, self._action_repeat = made_by.env_id, made_by.action_repeat
        self._envs, self._to_close = envs, to_close
        self._space: Any = envs[0].observation_space
        self._actions: Any = envs[0].action_space
        self._observations = np.zeros((len(envs), spaces.flatdim(self._space)), np.float32)

    def __len__(self) -> int:
        return len(self._envs)

    def begin(self, indices: np.ndarray, starts: Sequence[Any] | None) -> np.ndarray:
        """Begins an episode in each environment of `indices`, and returns their observations [len(indices), O].

        `starts` has a seed or a state of Pendulum [2] for each; None: each goes on with its own random numbers.
        """
        for position, index in enumerate(np.asarray(indices).tolist()):
            env: Any = self._envs[index]
            start: Any = None if starts is None else starts[position]
            options = {} if start is None else {"seed": 0 if np.ndim(start) else int(start)}
            result = self._call("reset", env.reset, **options)
            if not isinstance(result, tuple) or len(result) != 2:
                raise self._failure("reset", f"returns {type(result).__name__}, but must return (observation, info)")
            observation = result[0]
            if np.ndim(start):
                env.unwrapped.state = np.asarray(start, np.float64)
                observation = np.array([np.cos(start[0]), np.sin(start[0]), start[1]])
            self._record(index, observation, "a reset")
        return self._observations[indices]

    def step(self, actions: np.ndarray, active: np.ndarray) -> Step:
        """Executes the actions [n, A] where `active` [n]; returns NumPy arrays [n, ...]."""
        num, space = len(self._envs), self._actions
        # An agent that has diverged may have no numbers as actions; and a float64's bounds may lie inside a float32's.
        inside = np.nan_to_num(actions).astype(np.float64).reshape(num, *space.shape).clip(space.low, space.high)
        shaped = inside.astype(space.dtype)
        rewards, ends = np.zeros(num), np.zeros((2, num), bool)
        for index in np.flatnonzero(active).tolist():
            for _ in range(self._action_repeat):
                # Gymnasium's wrapper for the time limit returns five values, or raises an error.
                observation, reward, terminated, truncated, _ = self._call(
                    "step", self._envs[index].step, shaped[index]
                )
                self._record(index, observation, "a step")
                rewards[index] += self._number("reward", reward)
                ends[:, index] = self._number("terminated", terminated), self._number("truncated", truncated)
                if ends[:, index].any():
                    break
        results: list[Any] = [self._observations.copy(), rewards, *ends]
        return Step(*results)

    def keep(self, indices: np.ndarray) -> None:
        """Keeps only these environments, in this order, each in the middle of its episode."""
        self._envs = [self._envs[index] for index in indices.tolist()]
        self._observations = self._observations[indices]

    def render(self, index: int) -> np.ndarray:
        """Draws one environment as a frame [H, W, 3] of 8-bit colours. They must come from a task's `film_env`."""
        frame = np.array(self._call("render", self._envs[index].render))
        if frame.ndim != 3:
            raise self._failure("render", "returns no frame [H, W, 3]: use the task's film_env")
        return frame

    def close(self) -> None:
        """Closes all environments."""
        self._to_close.close()

    def _record(self, index: int, observation: Any, after: str) -> None:
        """Copies an observation as a vector [O]."""
        try:
            if not isinstance(self._space, spaces.Box):
                observation = spaces.flatten(self._space, observation)
            self._observations[index] = np.reshape(observation, self._observations.shape[1])
        except Exception as error:  # numbers or names are missing, or they are not numbers
            raise self._failure("observation", f"after {after} does not fit {self._space}: {one_line(error)}") from None

    def _number(self, name: str, value: Any) -> float:
        """Returns a reward or a flag as a number; arrays of any library with one number are numbers."""
        try:
            number = value.item() if hasattr(value, "item") else value
        except Exception:  # an array of several numbers
            number = None
        if not isinstance(number, int | float):
            raise self._failure(name, f"is {value!r}, but must be a number")
        return number

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except Exception as error:
            raise self._failure(name, f"raises {one_line(error)}") from error

    def _failure(self, name: str, fault: str) -> HostEnvFailure:
        return HostEnvFailure(f"{name} of {self._env_id!r} {fault}")


@contextlib.contextmanager
def _closing(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    try:
        yield env
    finally:
        with contextlib.suppress(Exception):  # one that cannot be closed must not keep the others open
            env.close()
