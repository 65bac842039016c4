"""Sweeps: the points of a grid or of a random search, each a configuration that many seeds train."""

import difflib
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from ddpg_jax.config import Config
from ddpg_jax.values import words

COMMON = ("env_id", "total_steps", "eval_every", "eval_episodes")
"""Fields that every point shares: the points are compared on the same task at the same steps."""

MAX_POINTS = 10_000
"""Points of a sweep, at most."""

_TYPES = {"preset": str} | get_type_hints(Config)
_DISTRIBUTIONS = ("uniform", "loguniform")


@dataclass(frozen=True)
class Point:
    """One configuration of a sweep, and the values that tell it from the others."""

    values: tuple[tuple[str, Any], ...]
    """The swept fields with this point's values; nothing in a run without a sweep."""
    config: Config

    def to_dict(self, base: Config) -> dict[str, Any]:
        """What JSON can hold: the values, and all fields in which the point differs from the base."""
        fields = base.to_dict()
        changes = {name: value for name, value in self.config.to_dict().items() if value != fields[name]}
        return {"values": dict(self.values), "changes": changes}

    @staticmethod
    def from_dict(content: Mapping[str, Any], base: Config) -> "Point":
        """What `to_dict` described, on a base that may have become longer."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in content["values"].items()}
        return Point(tuple(values.items()), Config.from_dict(base.to_dict() | content["changes"]))


def make_points(
    sweeps: Sequence[str], samples: int | None, seed: int, make_config: Callable[[dict[str, Any]], Config]
) -> tuple[Point, ...]:
    """The points that the options ask for: the whole grid, or `samples` random draws.

    Args:
        sweeps: "field=value,value,…", or "field=uniform:low,high" or "field=loguniform:low,high".
        samples: points of a random search; None for a grid.
        seed: of the random search.
        make_config: the configuration with some values changed.

    Raises:
        ValueError: names the sweep, the value and the rule.
    """
    axes: dict[str, Any] = dict(_axis(sweep) for sweep in sweeps)
    if len(axes) < len(sweeps):
        raise ValueError(f"sweep is {', '.join(sweeps)}, but must name each field once")
    random_fields = [name for name, axis in axes.items() if not isinstance(axis, tuple)]
    if random_fields and samples is None:
        raise ValueError(f"samples is not given, but must be: {random_fields[0]} is drawn from a distribution")
    size = math.prod(len(axis) for axis in axes.values() if isinstance(axis, tuple)) if samples is None else samples
    if size > MAX_POINTS:
        raise ValueError(f"sweep has {size:,} points, but must have at most {MAX_POINTS:,}")
    combinations = itertools.product(*axes.values()) if samples is None else _draws(axes, samples, seed)
    return tuple(_point(dict(zip(axes, values, strict=True)), make_config) for values in combinations)


def _point(values: dict[str, Any], make_config: Callable[[dict[str, Any]], Config]) -> Point:
    try:
        return Point(tuple(values.items()), make_config(values))
    except ValueError as error:
        raise ValueError(f"sweep has the point {words(values)}: {error}") from None


@dataclass(frozen=True)
class _Range:
    """What a field is drawn from."""

    low: float
    high: float
    logarithmic: bool
    whole: bool

    def draw(self, source: random.Random) -> float | int:
        """A value, of three digits, so that it can be read and typed again."""
        if self.logarithmic:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        return round(value) if self.whole else min(max(float(f"{value:.3g}"), self.low), self.high)


def _draws(axes: dict[str, Any], samples: int, seed: int) -> list[tuple[Any, ...]]:
    """So many different points, each field drawn on its own.

    Raises:
        ValueError: if there are not so many.
    """
    source = random.Random(seed)
    found: dict[tuple[Any, ...], None] = {}
    for _ in range(100 * samples):
        draw = [axis.draw(source) if isinstance(axis, _Range) else source.choice(axis) for axis in axes.values()]
        found[tuple(draw)] = None
        if len(found) == samples:
            return list(found)
    raise ValueError(
        f"samples is {samples}, but must be at most the number of different points; {len(found)} were found"
    )


def _axis(sweep: str) -> tuple[str, tuple[Any, ...] | _Range]:
    """A field, and its values or what they are drawn from."""
    name, equals, text = sweep.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals or not text.strip():
        raise ValueError(f"sweep is {sweep!r}, but must be FIELD=VALUE,VALUE,… or FIELD=loguniform:LOW,HIGH")
    if name in COMMON:
        raise ValueError(f"sweep is {sweep!r}, but must not be over {name}, which all points share")
    if name not in _TYPES:
        near = difflib.get_close_matches(name, _TYPES, n=1)
        hint = f"; is it {near[0]}?" if near else ""
        raise ValueError(f"sweep is {sweep!r}, but must name a field of the configuration or preset{hint}")
    kind, colon, bounds = text.partition(":")
    if colon:
        return name, _range(sweep, name, kind.strip(), bounds)
    values = tuple(_value(sweep, name, word.strip()) for word in text.split(","))
    if len(set(values)) < len(values):
        raise ValueError(f"sweep is {sweep!r}, but must give each value once")
    return name, values


def _range(sweep: str, name: str, kind: str, text: str) -> _Range:
    logarithmic = kind == "loguniform"
    rule = (
        f"sweep is {sweep!r}, but must be {name}=uniform:LOW,HIGH or {name}=loguniform:LOW,HIGH with numbers LOW < HIGH"
    )
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(rule) from None
    if kind not in _DISTRIBUTIONS or not -1e30 <= low < high <= 1e30:
        raise ValueError(rule)
    if logarithmic and low <= 0:
        raise ValueError(f"sweep is {sweep!r}, but must have LOW > 0 for loguniform")
    kinds = _kinds(name)
    if not kinds & {int, float}:
        raise ValueError(f"sweep is {sweep!r}, but must list the values of {name}, which is not a number")
    return _Range(low, high, logarithmic, whole=float not in kinds)


def _value(sweep: str, name: str, word: str) -> Any:
    """A word as a value of the field; whether it lies in the field's domain is the configuration's affair."""
    kinds = _kinds(name)
    if not word:
        raise ValueError(f"sweep is {sweep!r}, but must not have an empty value")
    if word == "None" and type(None) in kinds:
        return None
    if tuple in kinds:
        if word == "none":
            return ()
        with suppress(ValueError):
            return tuple(int(size) for size in word.split("x"))
        raise ValueError(f"sweep is {sweep!r}, but must give sizes as 64x64 (or none): {word!r} is neither")
    if bool in kinds:
        if word.lower() not in ("true", "false"):
            raise ValueError(f"sweep is {sweep!r}, but must give True or False")
        return word.lower() == "true"
    if float in kinds or int in kinds:
        for number in (int, float):
            with suppress(ValueError):
                return float(number(word)) if float in kinds else number(word)
        raise ValueError(f"sweep is {sweep!r}, but must give numbers: {word!r} is none")
    return word


def _kinds(name: str) -> set[Any]:
    """The types that a field's value may have; `tuple` for sizes."""
    annotation = _TYPES[name]
    kinds = {annotation, *get_args(annotation)} if get_origin(annotation) is not tuple else {tuple}
    return {get_origin(kind) or kind for kind in kinds}
