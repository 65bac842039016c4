"""Sweeps: the points of a grid or of a random search, each a configuration that is trained with many seeds."""

import difflib
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.domains import from_words, kind_of
from ddpg_jax.values import words

COMMON = ("env_id", "env_args", "action_repeat", "total_steps", "eval_every", "eval_episodes", "final_episodes")
"""Fields that all points share: they are compared on the same task at the same steps."""

MAX_POINTS = 10_000
"""The largest number of points in a sweep."""

_SWEPT = {"preset": str} | ANNOTATIONS


@dataclass(frozen=True)
class Point:
    """One configuration of a sweep, and the values in which it differs from the others."""

    values: tuple[tuple[str, Any], ...]
    """The swept fields with this point's values; empty in a run without a sweep."""
    config: Config

    def to_dict(self, base: Config) -> dict[str, Any]:
        """Returns the values, and all fields in which the point differs from the base, for JSON."""
        fields = base.to_dict()
        changes = {name: value for name, value in self.config.to_dict().items() if value != fields[name]}
        return {"values": dict(self.values), "changes": changes}

    @staticmethod
    def from_dict(content: Mapping[str, Any], base: Config) -> "Point":
        """Returns the point that `to_dict` described, on a base that may train for more steps."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in content["values"].items()}
        return Point(tuple(values.items()), Config.from_dict(base.to_dict() | content["changes"]))


def make_points(
    sweeps: Sequence[str], samples: int | None, seed: int, make_config: Callable[[dict[str, Any]], Config]
) -> tuple[Point, ...]:
    """Returns the whole grid, or `samples` points drawn at random.

    Args:
        sweeps: "field=value,value,…", or "field=uniform:low,high" or "field=loguniform:low,high".
        samples: points of a random search; None for a grid.
        seed: of the random search.
        make_config: returns the configuration with some values changed.

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
    """A range from which a field is drawn."""

    low: float
    high: float
    logarithmic: bool
    whole: bool

    def draw(self, source: random.Random) -> float | int:
        """Returns a value with three digits, so that it can be read and typed again."""
        if self.logarithmic:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        return round(value) if self.whole else min(max(float(f"{value:.3g}"), self.low), self.high)


def _draws(axes: dict[str, Any], samples: int, seed: int) -> list[tuple[Any, ...]]:
    """Returns different points, each field drawn independently.

    Raises:
        ValueError: if there are fewer than `samples`.
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
    """Returns a field, and its values or the range from which they are drawn."""
    name, equals, text = sweep.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals or not text.strip():
        raise ValueError(f"sweep is {sweep!r}, but must be FIELD=VALUE,VALUE,… or FIELD=loguniform:LOW,HIGH")
    if name in COMMON:
        raise ValueError(f"sweep is {sweep!r}, but must not be over {name}, which all points share")
    if name not in _SWEPT:
        near = difflib.get_close_matches(name, _SWEPT, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"sweep is {sweep!r}, but must name a field of the configuration or preset{hint}")
    distribution, colon, bounds = text.partition(":")
    if colon:
        return name, _range(sweep, name, distribution.strip(), bounds)
    words = [word.strip() for word in text.split(",")]
    if "" in words:
        raise ValueError(f"sweep is {sweep!r}, but must not have an empty value")
    try:
        values = tuple(from_words(name, [word], _SWEPT[name]) for word in words)
    except ValueError as error:
        raise ValueError(f"sweep is {sweep!r}: {error}") from None
    if len(set(values)) < len(values):
        raise ValueError(f"sweep is {sweep!r}, but must give each value once")
    return name, values


def _range(sweep: str, name: str, distribution: str, text: str) -> _Range:
    rule = (
        f"sweep is {sweep!r}, but must be {name}=uniform:LOW,HIGH or {name}=loguniform:LOW,HIGH with numbers LOW < HIGH"
    )
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(rule) from None
    if distribution not in ("uniform", "loguniform") or not -1e30 <= low < high <= 1e30:
        raise ValueError(rule)
    if distribution == "loguniform" and low <= 0:
        raise ValueError(f"sweep is {sweep!r}, but must have LOW > 0 for loguniform")
    kind = kind_of(_SWEPT[name])
    if kind.is_tuple or kind.type not in (int, float):
        raise ValueError(f"sweep is {sweep!r}, but must list the values of {name}, which is not a number")
    return _Range(low, high, logarithmic=distribution == "loguniform", whole=kind.type is int)
