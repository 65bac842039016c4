"""All environments by name: PROVIDER:NAME of a library, MODULE:FUNCTION of your own, or a name of gymnax."""

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType

from ddpg_jax.config import Config
from ddpg_jax.environments import user_env
from ddpg_jax.environments.adapt import adapt
from ddpg_jax.environments.arguments import one_line, refusing
from ddpg_jax.environments.task import Task

PROVIDERS = {"gymnax": "gymnax", "brax": "brax", "playground": "mujoco_playground", "gymnasium": "gymnasium"}
"""The libraries by the names in front of the colon, each with its module; one file of this folder for each."""

_kept: dict[tuple[str, tuple[str, ...], int], Task] = {}


def make_task(env_id: str, env_args: Sequence[str] = (), action_repeat: int = 1) -> Task:
    """Returns the task of that name, checked and adapted; each action is executed `action_repeat` times.

    `env_id` is a name of gymnax, such as "Pendulum-v1"; one of another library behind its own and a colon, such as
    "playground:CartpoleSwingup"; or "package.module:function", which returns an `Environment` or a `Task`. `env_args`
    are words NAME=VALUE. Raises ValueError for what cannot be found or made here, or does not return what it must.
    Tasks of libraries whose functions never change are made once, so that programs compiled for them can be used again.
    """
    name = (env_id, tuple(env_args), action_repeat)
    if name in _kept:
        return _kept[name]
    task = _make(env_id, name[1])
    if action_repeat != 1 and task.optimal_returns is not None and not is_user_env(env_id):
        task = replace(task, starts=None)  # the table of start states is for the task with the optimum
    task = adapt(task, action_repeat)
    if task.environment.cacheable and task.environment.host_env is None:
        _kept[name] = task
    return task


def task_of(config: Config) -> Task:
    """Returns the task of a configuration (see `make_task`)."""
    return make_task(config.env_id, config.env_args, config.action_repeat)


def is_user_env(env_id: str) -> bool:
    """Returns whether a name has a module of the user's: MODULE:FUNCTION, or gymnasium:MODULE:NAME."""
    provider, colon, name = env_id.partition(":")
    return bool(colon) and (provider not in PROVIDERS or (provider == "gymnasium" and ":" in name))


def listed() -> Iterator[str]:
    """Yields a line for each environment that can be named here, and one for each library that is missing."""
    for provider in PROVIDERS:
        prefix = "" if provider == "gymnax" else f"{provider}:"
        try:
            yield from (_described(f"{prefix}{name}") for name in _module(provider, provider).names())
            if provider == "playground":
                yield "playground:…: its other tasks, which download robot models when they are first made"
        except ValueError as error:  # not installed
            yield str(error)
        except Exception as error:  # installed, but not for these versions of the other packages
            yield f"{provider}: cannot be used here: {one_line(error)}"
    yield "MODULE:FUNCTION: a function of your own that returns a ddpg_jax.Environment or a ddpg_jax.Task"


def _described(env_id: str) -> str:
    try:
        environment = _make(env_id, ()).environment
    except Exception as error:  # of a library that, for example, downloads models
        return f"{env_id}: cannot be made here: {one_line(error)}"
    sizes = ((environment.observation_size, "observation"), (environment.action_size, "action"))
    spaces = ", ".join(f"{size} {word}{'s' * (size > 1)}" for size, word in sizes)
    return f"{env_id}: {spaces}, episodes of at most {environment.max_steps:,} steps"


def _make(env_id: str, env_args: tuple[str, ...]) -> Task:
    """Returns what a library or a user's function makes."""
    provider, name = env_id.split(":", 1) if ":" in env_id else ("gymnax", env_id)
    if provider not in PROVIDERS:
        rule = "MODULE:FUNCTION, which can be called here and returns a ddpg_jax.Environment or a ddpg_jax.Task"
        with refusing(env_id, env_args, rule):
            return user_env.make(env_id, env_args)
    library = _module(provider, env_id)
    with refusing(env_id, env_args, f"an environment of {provider} that can be made here"):
        if provider == "gymnasium" or library.has(name):  # Gymnasium itself says what is similar
            return library.make(name, env_id, env_args)
        rule = f"one of {', '.join(library.names())}, or another name that --list-environments shows"
    rule = " or ".join(f"{other}:{name}" for other in PROVIDERS if _has(other, name)) or rule
    raise ValueError(f"env_id is {env_id!r}, which {provider} does not have, but must be {rule}")


def _has(provider: str, name: str) -> bool:
    """Returns whether a library has an environment of this name; False if the library cannot be used here."""
    with contextlib.suppress(Exception):
        return bool(_module(provider, name).has(name))
    return False


def _module(provider: str, env_id: str) -> ModuleType:
    """Returns the file of a provider, if its library is installed."""
    if importlib.util.find_spec(PROVIDERS[provider]) is None:
        fix = f'{PROVIDERS[provider]} is not installed; pip install "ddpg_jax[{provider}]"'
        raise ValueError(f"env_id is {env_id!r}, but must be usable here: {fix}")
    return importlib.import_module(f"ddpg_jax.environments.{provider}")
