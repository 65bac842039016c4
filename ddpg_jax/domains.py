"""The domain of a field: its check, the words of its rule, and its values as text.

A field is annotated with its type and, where that says too little, with a `Domain`:
`gamma: Annotated[float, FRACTION] = 0.99`. Configuration, options, `--help` and sweeps all read it there.
"""

import ast
import contextlib
import inspect
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints


class Domain(NamedTuple):
    """The values that a field may have, in addition to its type."""

    rule: str
    """Completes "FIELD is VALUE, but must be …"."""
    contains: Callable[[Any], bool]

    def __repr__(self) -> str:
        return repr(self.rule)


LARGEST_COUNT = 2**31 - 1
"""Counters in the compiled program are 32-bit integers."""

LARGEST_NUMBER = 1e30
"""Numbers in the compiled program are 32-bit floats."""


def count(least: int = 1, most: int = LARGEST_COUNT) -> Domain:
    """Returns the whole numbers between two bounds."""
    return Domain(f"a whole number >= {least} (at most {most})", lambda v: least <= v <= most)


POSITIVE = Domain("a finite number > 0 (at most 1e30, at least 1e-30)", lambda v: 1e-30 <= v <= LARGEST_NUMBER)
NOT_NEGATIVE = Domain("a finite number >= 0 (at most 1e30)", lambda v: 0 <= v <= LARGEST_NUMBER)
FINITE = Domain("a finite number (at most 1e30 in size)", lambda v: abs(v) <= LARGEST_NUMBER)
FRACTION = Domain("in [0, 1]", lambda v: 0 <= v <= 1)
DECAY = Domain("in (0, 1]", lambda v: 0 < v <= 1)
RATE = Domain("in [0, 1)", lambda v: 0 <= v < 1)
SECONDS = Domain("a number of seconds > 0 (at most 1e9)", lambda v: 0 < v <= 1e9)
COUNT, COUNT_OR_ZERO = count(), count(0)
SIZES = Domain("whole numbers >= 1 (at most 65536), at most 64 of them",
               lambda v: len(v) <= 64 and all(1 <= size <= 65536 for size in v))  # fmt: skip
ARGUMENTS = Domain("words of the form NAME=VALUE", lambda v: all(word.partition("=")[0] and "=" in word for word in v))
NAME = Domain("a name", lambda v: bool(v.strip()))
FOLDER = Domain("a folder", lambda v: str(v) not in ("", ".") and "\0" not in str(v))


class Kind(NamedTuple):
    """An annotation taken apart."""

    type: Any
    """bool, int, float, str, Path, or Literal; of the items, if the field is a tuple."""
    is_tuple: bool
    optional: bool
    choices: tuple[str, ...]
    domain: Domain | None


@cache
def kind_of(annotation: Any) -> Kind:
    """Returns the parts of an annotation such as `Annotated[float | None, POSITIVE]`."""
    domain = None
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        domain = next((extra for extra in extras if isinstance(extra, Domain)), None)
    optional = type(None) in get_args(annotation)
    if optional:
        (annotation,) = (arg for arg in get_args(annotation) if arg is not type(None))
    is_tuple = get_origin(annotation) is tuple
    item = get_args(annotation)[0] if is_tuple else annotation
    choices = get_args(item) if get_origin(item) is Literal else ()
    return Kind(Literal if choices else item, is_tuple, optional, choices, domain)


def annotations(cls: type) -> dict[str, Any]:
    """Returns the annotations of a dataclass by its fields' names."""
    return {name: hint for name, hint in get_type_hints(cls, include_extras=True).items() if not name.startswith("_")}


@cache
def descriptions(described: type | ModuleType) -> dict[str, str]:
    """Returns the strings below the fields of a class, or below the constants of a module, by their names."""
    tree: Any = ast.parse(textwrap.dedent(inspect.getsource(described)))
    body = tree.body if isinstance(described, ModuleType) else tree.body[0].body
    found = {}
    for statement, below in itertools.pairwise(body):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
            target: Any = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            found[target.id] = " ".join(ast.literal_eval(below.value).split())
    return found


def check(name: str, value: Any, annotation: Any) -> Any:
    """Returns a field's value in the field's own type: an int for a float becomes one, a list a tuple.

    Raises:
        ValueError: names the field, the value and the rule.
    """
    kind = kind_of(annotation)
    if value is None and kind.optional:
        return None
    if kind.is_tuple:
        if not isinstance(value, tuple | list):
            raise ValueError(f"{name} is {value!r}, but must be {_plural(kind)}")
        value = tuple(_checked(name, item, kind, value) for item in value)
    else:
        value = _checked(name, value, kind, value)
    if kind.domain is not None and not kind.domain.contains(value):
        given = list(value) if kind.is_tuple else str(value) if kind.type is Path else value
        raise ValueError(f"{name} is {given!r}, but must be {kind.domain.rule}")
    return value


def _checked(name: str, value: Any, kind: Kind, whole: Any) -> Any:
    """Returns a value, or an item of the value `whole`, in its type."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if kind.type is float and (is_whole or (isinstance(value, float) and math.isfinite(value))):
        return float(max(-(10**300), min(value, 10**300)))  # an int may be too large for a float; the domain refuses it
    if kind.type is int and is_whole:
        return value
    if kind.type is Path and isinstance(value, str | Path):
        return Path(value) if str(value) else value
    if kind.choices:
        if value in kind.choices:
            return value
        raise ValueError(f"{name} is {value!r}, but must be {_rule(kind)}")
    if kind.type in (bool, str) and isinstance(value, kind.type):
        return value
    raise ValueError(f"{name} is {whole!r}, but must be {_plural(kind) if kind.is_tuple else _rule(kind)}")


def _plural(kind: Kind) -> str:
    return "whole numbers" if kind.type is int else "texts"


def _rule(kind: Kind) -> str:
    """Returns what a value must be, where it does not even have the right type."""
    if kind.choices:
        return f"one of {', '.join(kind.choices)}"
    if kind.type is int and kind.domain is not None:
        return kind.domain.rule
    names = {bool: "True or False", float: "a finite number", int: "a whole number", str: "a name", Path: "a folder"}
    return names[kind.type] if kind.domain is None or kind.type is float else kind.domain.rule


def rule_of(annotation: Any) -> str:
    """Returns the rule of a field for its help; empty if its type and its description say enough."""
    kind = kind_of(annotation)
    if kind.choices:
        return f"one of {', '.join(kind.choices)}"
    return "" if kind.domain in (None, NAME, FOLDER, ARGUMENTS) else kind.domain.rule


def from_words(name: str, words: Sequence[str], annotation: Any) -> Any:
    """Returns a field's value that a command line or a sweep gives as words, checked.

    Sizes are written 64x64 or as several words, and no sizes as none; a value that may be missing as None.

    Raises:
        ValueError: names the field, the value and the rule.
    """
    kind = kind_of(annotation)
    if kind.optional and list(words) == ["None"]:
        return None
    if kind.is_tuple:
        items = [item for word in words for item in (word.split("x") if kind.type is int else [word])]
        return check(name, [] if items == ["none"] else [_from_word(item, kind) for item in items], annotation)
    if len(words) > 1:
        raise ValueError(f"{name} is {' '.join(words)!r}, but must be one value")
    return check(name, _from_word(words[0], kind) if words else "", annotation)


def _from_word(word: str, kind: Kind) -> Any:
    """Returns the value that a word stands for, or the word itself if it stands for none."""
    if kind.type is bool:
        return {"true": True, "false": False}.get(word.lower(), word)
    if kind.type is Path and word.startswith("~"):
        with contextlib.suppress(RuntimeError):  # no such user: the folder may have that name
            return Path(word).expanduser()
    for number in (int, float) if kind.type in (int, float) else ():
        with contextlib.suppress(ValueError):
            return number(word)
    return word
