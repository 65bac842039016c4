"""The arguments of environments, NAME=VALUE, and the one line that says why an environment cannot be made of them."""

import ast
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
"""Values that are written in any case."""


class RefusedError(ValueError):
    """Says in one line what cannot be used and which rule it breaks; `refusing` passes it on."""


def parse(env_args: Sequence[str], defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns new values by name: constants, numbers, lists and texts, whatever the words NAME=VALUE look like.

    With the parameters' default values, a whole float for an int becomes an int. Raises RefusedError.
    """
    values: dict[str, Any] = {}
    for word in env_args:
        name, equals, text = word.partition("=")
        if not (name and equals) or name in values:
            raise RefusedError(f"env_args has {word!r}, but must have each argument once, as NAME=VALUE")
        value, default = _value(text), (defaults or {}).get(name)
        if isinstance(default, bool) and isinstance(value, str):
            raise RefusedError(f"env_args has {word}, but must have true or false for {name}")
        is_whole = type(default) is int and isinstance(value, float) and value.is_integer()
        values[name] = int(value) if is_whole else value
    return values


def _value(text: str) -> Any:
    """Returns the value that a text looks like; a text that looks like nothing else stays one."""
    if text.strip().lower() in CONSTANTS:
        return CONSTANTS[text.strip().lower()]
    for read in (ast.literal_eval, json.loads):
        with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return read(text)
    return text


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the default values of a function's parameters, as far as Python knows them."""
    with suppress(TypeError, ValueError):  # written in C
        return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    return {}


def one_line(error: BaseException) -> str:
    """Returns an error's type and the first line of its message."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() of a KeyError is a repr
    return ": ".join([type(error).__name__, *str(message).strip().splitlines()[:1]])


@contextmanager
def refusing(env_id: str, env_args: Sequence[str], rule: str) -> Iterator[None]:
    """Turns any error of a library or of a user's function into a RefusedError that names the environment."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        given = f" with env_args {' '.join(env_args)}" if env_args else ""
        raise RefusedError(f"env_id is {env_id!r}{given}, but must be {rule}: {one_line(error)}") from error
