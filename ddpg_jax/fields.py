"""Fields of dataclasses: the rules that their values obey, and their values as text.

Where its type says too little, a field is annotated with a `Rule`: `gamma: Annotated[float, FRACTION] = 0.99`.
"""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints


class Rule(NamedTuple):
    """The values that a field may have, in addition to its type."""

    text: str
    """Completes "FIELD is VALUE, but must be …"."""
    holds: Callable[[Any], bool]


LARGEST_COUNT = 2**31 - 1
"""Counters in the compiled program are 32-bit integers."""


def count(least: int = 1, most: int = LARGEST_COUNT) -> Rule:
    """Returns the rule of the whole numbers between two bounds."""
    return Rule(f"a whole number >= {least} (at most {most})", lambda v: least <= v <= most)


def _differ(values: Sequence[Any]) -> bool:
    return len(set(values)) == len(values)


# Numbers in the compiled program are 32-bit floats.
POSITIVE = Rule("a finite number > 0 (at most 1e30, at least 1e-30)", lambda v: 1e-30 <= v <= 1e30)
NOT_NEGATIVE = Rule("a finite number >= 0 (at most 1e30)", lambda v: 0 <= v <= 1e30)
FINITE = Rule("a finite number (at most 1e30 in size)", lambda v: abs(v) <= 1e30)
FRACTION = Rule("a number in [0, 1]", lambda v: 0 <= v <= 1)
DECAY = Rule("a number in (0, 1]", lambda v: 0 < v <= 1)
RATE = Rule("a number in [0, 1)", lambda v: 0 <= v < 1)
SECONDS = Rule("a number of seconds > 0 (at most 1e9)", lambda v: 0 < v <= 1e9)
COUNT, COUNT_OR_ZERO = count(), count(0)
SIZES = Rule("whole numbers >= 1 (at most 65536), at most 64 of them",
             lambda v: len(v) <= 64 and all(1 <= size <= 65536 for size in v))  # fmt: skip
ARGUMENTS = Rule("words of the form NAME=VALUE, each name once",
                 lambda v: all(word.find("=") > 0 for word in v) and _differ([w.split("=")[0] for w in v]))  # fmt: skip
CLASS = Rule("MODULE:CLASS, a flax.linen.Module", lambda v: bool(re.fullmatch(r"\w+(\.\w+)*:\w+", v)))
NAME = Rule("a name", lambda v: bool(v.strip()))
FOLDER = Rule("a folder", lambda v: str(v) != "." and "\0" not in str(v))

_NOUNS = {float: "finite number", int: "whole number", str: "text", Path: "path"}


class Kind(NamedTuple):
    """An annotation taken apart."""

    type: Any
    """bool, int, float, str, Path, range, Literal or another class; the type of the items if the field is a tuple."""
    is_tuple: bool
    optional: bool
    choices: tuple[str, ...]
    rule: Rule


@cache
def kind_of(annotation: Any) -> Kind:
    """Returns the parts of an annotation such as `Annotated[float | None, POSITIVE]`."""
    rule = None
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        rule = next((extra for extra in extras if isinstance(extra, Rule)), None)
    optional = type(None) in get_args(annotation)
    if optional:
        (annotation,) = (arg for arg in get_args(annotation) if arg is not type(None))
    is_tuple = get_origin(annotation) is tuple
    item = get_args(annotation)[0] if is_tuple else annotation
    choices = get_args(item) if get_origin(item) is Literal else ()
    if rule is None and choices:
        named = f"{'some' if is_tuple else 'one'} of {', '.join(choices)}{', each once' if is_tuple else ''}"
        rule = Rule(named, lambda v: not is_tuple or _differ(v))
    elif rule is None:
        noun = _NOUNS.get(item, "value")
        text = "True or False" if item is bool else f"{noun}s" if is_tuple else f"a {noun}"
        rule = Rule(text, lambda v: True)
    return Kind(Literal if choices else item, is_tuple, optional, choices, rule)


@cache
def annotations(cls: type) -> dict[str, Any]:
    """Returns the annotations of a dataclass's fields by their names."""
    return get_type_hints(cls, include_extras=True)


@cache
def descriptions(cls: type) -> dict[str, str]:
    """Returns the strings below a dataclass's fields by their names, inherited ones first."""
    found = {}
    for each in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        tree: Any = ast.parse(inspect.getsource(each))
        for statement, below in itertools.pairwise(tree.body[0].body):
            if isinstance(statement, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[ast.unparse(statement.target)] = " ".join(ast.literal_eval(below.value).split())
    return found


def checked(name: str, value: Any, annotation: Any) -> Any:
    """Returns a field's value in the field's own type: a whole float for an int becomes one, a list a tuple.

    Scalars and vectors of NumPy and JAX count as numbers and lists. A ValueError names the field, the value and the
    rule.
    """
    kind, value = kind_of(annotation), _plain(value)
    if value is None and kind.optional:
        return None
    with contextlib.suppress(TypeError):
        if kind.is_tuple and not isinstance(value, tuple | list):
            raise TypeError
        found = tuple(_converted(item, kind) for item in value) if kind.is_tuple else _converted(value, kind)
        if kind.rule.holds(found):
            return found
    shown = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    raise ValueError(f"{name} is {shown!r}, but must be {kind.rule.text}")


def check_fields(instance: Any) -> None:
    """Puts each value of a frozen dataclass through `checked`, in its `__post_init__`."""
    for name, annotation in annotations(instance.__class__).items():
        object.__setattr__(instance, name, checked(name, getattr(instance, name), annotation))


def _plain(value: Any) -> Any:
    """Returns a scalar or vector of NumPy or JAX as Python's own numbers, np.float32(0.1) as 0.1."""
    if getattr(value, "ndim", None) == 0:
        scalar = value.__array__()[()]
        return float(str(scalar)) if scalar.dtype.kind == "f" else scalar.item()
    return value.tolist() if getattr(value, "ndim", None) == 1 else value


def _converted(value: Any, kind: Kind) -> Any:
    """Returns a value, or an item of a tuple, in its type; raises TypeError if it is not of the type."""
    value = _plain(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind.choices and isinstance(value, str) and value in kind.choices:
        return value
    if kind.type is float and is_number and abs(value) < float("inf"):
        return float(max(-(10**300), min(value, 10**300)))  # an int may be too large for a float; the rule refuses it
    if kind.type in (int, range) and is_number and value % 1 == 0:
        return int(value) if kind.type is int else range(int(value))
    if kind.type is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    if not kind.choices and kind.type not in (int, float) and isinstance(value, kind.type):
        return value
    raise TypeError


def from_text(words: Sequence[str], annotation: Any) -> Any:
    """Returns the value that words of a command line or a sweep mean, and the words where they mean none."""
    kind = kind_of(annotation)
    if kind.optional and [*words] in (["None"], [] if kind.is_tuple else ["none"]):
        return None
    if not kind.is_tuple or not words:
        return _from_word(words[0], kind) if words else ""
    items = [item for word in words for item in (word.split("x") if kind.type is int else [word])]
    return () if items == ["none"] else tuple(_from_word(item, kind) for item in items)


def _from_word(word: str, kind: Kind) -> Any:
    if kind.type is bool:
        return {"true": True, "false": False}.get(word.lower(), word)
    if kind.type is range and re.fullmatch("[0-9]{1,10}:[0-9]{1,10}", word):
        return range(*map(int, word.split(":"))) or word
    with contextlib.suppress(ValueError, RuntimeError):  # RuntimeError: no such user; the folder may have that name
        if kind.type is Path:
            return Path(word).expanduser() if word.startswith("~") else word
        if kind.type in (int, float, range):
            return int(word) if re.fullmatch("[-+]?[0-9]{1,400}", word) else float(word)
    return word


def format_value(value: Any) -> str:
    """Returns a value as the command line takes it; a number reads back as the same number."""
    if isinstance(value, tuple | list):
        between = "x" if all(isinstance(item, int) for item in value) else " "
        return between.join(map(str, value)) or "none"
    if isinstance(value, range):
        return f"{value.start}:{value.stop}" if value.start else str(value.stop)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
