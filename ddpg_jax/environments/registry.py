"""All environments by name: PROVIDER:NAME of a library, MODULE:FUNCTION of one's own, or a name of gymnax."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments import own

PROVIDERS = {"gymnax": "gymnax", "brax": "brax", "playground": "mujoco_playground", "gymnasium": "gymnasium"}
"""The libraries by the names in front of the colon, each with its module; one file of this folder for each."""

MORE = {"playground": "its locomotion and manipulation tasks, which download robot models when they are first made"}
"""What a library has in addition to the names that are listed."""


def make(env_id: str, env_args: Sequence[str] = ()) -> Environment:
    """Returns the environment of that name.

    Args:
        env_id: a name of gymnax, such as "Pendulum-v1"; one of another library behind its own and a colon, such as
            "playground:CartpoleSwingup"; or "package.module:function", which returns an `Environment`.
        env_args: arguments of the environment, each NAME=VALUE.

    Raises:
        ValueError: if there is no such environment, its library is not installed, its actions are not continuous and
            bounded, or its episodes have no time limit.
    """
    return _make(env_id, tuple(env_args))


@lru_cache(maxsize=64)
def _make(env_id: str, env_args: tuple[str, ...]) -> Environment:
    arguments = dict(map(_argument, env_args))
    if is_own(env_id):
        return own.make(env_id, arguments)
    provider, colon, name = env_id.partition(":")
    return _module(provider if colon else "gymnax", env_id).make(name if colon else env_id, env_id, arguments)


def is_own(env_id: str) -> bool:
    """Returns whether a name is that of a user's function."""
    provider, colon, _ = env_id.partition(":")
    return bool(colon) and provider not in PROVIDERS


def listed() -> Iterator[str]:
    """Yields a line for each environment that can be named here, and one for each library that is missing."""
    for provider in PROVIDERS:
        prefix = "" if provider == "gymnax" else f"{provider}:"
        try:
            names = _module(provider, provider).names()
        except ValueError as error:
            yield str(error)
            continue
        for name in names:
            yield _described(f"{prefix}{name}")
        if provider in MORE:
            yield f"{provider}:…: {MORE[provider]}"
    yield "MODULE:FUNCTION: a function of your own that returns a ddpg_jax.Environment"


def _described(env_id: str) -> str:
    try:
        environment = make(env_id)
    except Exception as error:  # of a library that, for example, downloads models
        reason = str(error).splitlines() or [type(error).__name__]
        return f"{env_id}: cannot be made here: {reason[0]}"
    sizes = f"{environment.observation_size} observations, {environment.action_size} action(s)"
    return f"{env_id}: {sizes}, episodes of at most {environment.max_steps:,} steps"


def _module(provider: str, env_id: str) -> ModuleType:
    """Returns the file of a provider, if its library is installed."""
    if importlib.util.find_spec(PROVIDERS[provider]) is None:
        raise ValueError(
            f"env_id is {env_id!r}, but must be usable here: {PROVIDERS[provider]} is not installed; "
            f'pip install "ddpg_jax[{provider}]"'
        )
    return importlib.import_module(f"ddpg_jax.environments.{provider}")


def _argument(text: str) -> tuple[str, Any]:
    """Returns the name and the value of NAME=VALUE; a value that is not a Python literal is a text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"env_args has {text!r}, but must have words of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
