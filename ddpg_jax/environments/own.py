"""Environments of the user: a function in an importable module that returns an `Environment`."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpg_jax.algorithm.environment import Environment


def make(env_id: str, arguments: Mapping[str, Any]) -> Environment:
    """Returns the environment that a function of the user's makes.

    Args:
        env_id: "package.module:function".
        arguments: of the function.

    Raises:
        ValueError: if there is no such function, or it does not return an environment.
    """
    place, _, name = env_id.partition(":")
    try:
        function = getattr(importlib.import_module(place), name)
        environment = function(**arguments)
    except Exception as error:
        raise ValueError(
            f"env_id is {env_id!r}, but must be MODULE:FUNCTION, which can be imported and called here: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(environment, Environment):
        raise ValueError(
            f"env_id is {env_id!r}, but must name a function that returns a ddpg_jax.Environment; it returns "
            f"{type(environment).__name__}"
        )
    return environment


def folder_of(env_id: str) -> str | None:
    """Returns the folder from which Python imports the module of an environment; None if it has no file."""
    place = env_id.partition(":")[0]
    file = getattr(importlib.import_module(place), "__file__", None)
    if file is None:
        return None
    path = Path(file).resolve()
    steps = place.count(".") + (path.name == "__init__.py")
    return str(path.parents[steps])
