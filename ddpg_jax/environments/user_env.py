"""Environments of the user: a function in an importable module that returns an `Environment` or a `Task`."""

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments.arguments import defaults_of, parse
from ddpg_jax.environments.task import Task


def make(env_id: str, env_args: Sequence[str]) -> Task:
    """Returns the task that a function of the user's makes; its module is also looked for in the current folder.

    No program that is compiled for it is kept between calls, even if the function has changed a library's environment.
    """
    look_in(os.getcwd())
    module, _, name = env_id.partition(":")
    function = getattr(importlib.import_module(module), name)
    made = function(**parse(env_args, defaults_of(function)))
    if not isinstance(made, Environment | Task):
        raise TypeError(f"it returns {type(made).__name__}")
    task = made if isinstance(made, Task) else Task(made)
    return replace(task, environment=replace(task.environment, cacheable=False))


def look_in(folder: str | None) -> None:
    """Lets modules be imported from one more folder; modules that are found elsewhere come first."""
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)


def folder_of(env_id: str) -> str | None:
    """Returns the folder from which Python imports the module in "MODULE:FUNCTION" or "gymnasium:MODULE:NAME"."""
    module = env_id.removeprefix("gymnasium:").partition(":")[0]
    file = getattr(importlib.import_module(module), "__file__", None)
    if file is None:
        return None
    path = Path(file).resolve()
    return str(path.parents[module.count(".") + (path.name == "__init__.py")])
