"""Sweeps: the configurations of a grid or of a random search, each trained with many seeds."""

import difflib
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.fields import checked, format_value, from_text, kind_of
from ddpg_jax.presets import PRESETS, preset

COMMON = ("env_id", "env_args", "action_repeat", "total_steps", "eval_every", "eval_episodes", "final_episodes")
"""Fields that all configurations share: they are compared on the same task at the same steps."""

MAX_CONFIGS = 10_000
"""The largest number of configurations in a sweep."""

_SWEPT = {"preset": str} | ANNOTATIONS
_AGENT = [name for name in ANNOTATIONS if name not in COMMON]


class SweptConfig(NamedTuple):
    """One configuration of a sweep."""

    values: Mapping[str, Any]
    """The fields in which it differs from the others, or its preset; empty where there is only one configuration."""
    config: Config


def label(values: Mapping[str, Any]) -> str:
    """Returns the swept values of a configuration as text, such as "tau=0.01, hidden_sizes=64x64"."""
    return ", ".join(f"{name}={format_value(value)}" for name, value in values.items())


Configs = Config | str | Sequence[Config | str | SweptConfig]
"""A configuration, the name of a preset, or a list of them: the configurations of a sweep."""


def preset_of(config: Config) -> str:
    """Returns the preset that a configuration is, apart from task, steps and evaluations; "custom" if it is not one."""
    same = (name for name, other in PRESETS.items() if all(getattr(other, f) == getattr(config, f) for f in _AGENT))
    return next(same, "custom")


def _config_of(given: Any) -> Config:
    config = preset(given) if isinstance(given, str) else given.config if isinstance(given, SweptConfig) else given
    if not isinstance(config, Config):
        raise ValueError(f"config is {given!r}, but must be a Config, the name of a preset, or a list of them")
    return config


def as_swept(configs: Configs | SweptConfig) -> tuple[SweptConfig, ...]:
    """Returns the configurations of a run, each with the fields in which it differs; raises ValueError."""
    given = [*configs] if isinstance(configs, list | tuple) and not isinstance(configs, SweptConfig) else [configs]
    found = [_config_of(each) for each in given]
    if not found:
        raise ValueError("config is [], but must be a list of at least one configuration")
    for name in COMMON:
        different = list(dict.fromkeys(getattr(config, name) for config in found))
        if len(different) > 1:
            raise ValueError(f"{name} is {' and '.join(map(repr, different))}, but must be the same in all "
                             f"configurations: change it with config.replace({name}=...)")  # fmt: skip
    if len(set(found)) < len(found):
        raise ValueError("config has equal configurations, but must have each of them once")
    names = [name for name in _AGENT if len({getattr(config, name) for config in found}) > 1]
    presets = [preset_of(config) for config in found]
    values: list[dict[str, Any]] = [{name: getattr(config, name) for name in names} for config in found]
    if names and "custom" not in presets:
        values = [{"preset": name} for name in presets]
    return tuple(each if isinstance(each, SweptConfig) else SweptConfig(own, config)
                 for each, own, config in zip(given, values, found, strict=True))  # fmt: skip


def expand(
    sweeps: Sequence[str], samples: int | None, seed: int, make_config: Callable[[dict[str, Any]], Config]
) -> tuple[SweptConfig, ...]:
    """Returns the configurations of the whole grid, or `samples` of them drawn at random; raises ValueError.

    Args:
        sweeps: "field=value,value,…", "field=uniform:low,high" or "field=loguniform:low,high" each.
        samples: number of configurations of a random search; None: the grid.
        seed: of the random search.
        make_config: returns the configuration with some values changed.
    """
    axes: dict[str, Any] = dict(map(_axis, sweeps))
    if len(axes) < len(sweeps):
        raise ValueError(f"sweep is {', '.join(sweeps)}, but must name each field once")
    drawn = [name for name, axis in axes.items() if isinstance(axis, _Range)]
    if drawn and samples is None:
        raise ValueError(f"samples is not given, but must be: {drawn[0]} is drawn from a distribution")
    size = math.prod(len(axis) for axis in axes.values()) if samples is None else samples
    if size > MAX_CONFIGS:
        raise ValueError(f"sweep has {size:,} configurations, but must have at most {MAX_CONFIGS:,}")
    swept = []
    for combination in itertools.product(*axes.values()) if samples is None else _draw(axes, samples, seed):
        values = dict(zip(axes, combination, strict=True))
        try:
            swept.append(SweptConfig(values, make_config(values)))
        except ValueError as error:
            raise ValueError(f"sweep has the configuration {label(values)}: {error}" if values else error) from None
    return tuple(swept)


class _Range(NamedTuple):
    """A range from which a field is drawn."""

    low: float
    high: float
    logarithmic: bool
    whole: bool

    def draw(self, source: random.Random) -> float | int:
        """Returns a number with about four digits of the range, so that it can be read and typed again.

        Of whole numbers, uniform draws each alike, and loguniform in proportion to log(1 + 1/number).
        """
        low, high = (math.ceil(self.low), math.floor(self.high) + 1) if self.whole else (self.low, self.high)
        value = source.uniform(*map(math.log, (low, high))) if self.logarithmic else source.uniform(low, high)
        value = math.exp(value) if self.logarithmic else value
        if self.whole:
            return min(math.floor(value), high - 1)
        width = value * math.log(high / low) if self.logarithmic else high - low
        return min(max(round(value, 3 - math.floor(math.log10(width))), low), high)


def _draw(axes: dict[str, Any], samples: int, seed: int) -> list[tuple[Any, ...]]:
    """Returns different combinations, each field drawn independently; raises ValueError if there are too few."""
    source = random.Random(seed)
    found: dict[tuple[Any, ...], None] = {}
    for _ in range(100 * samples):
        draw = (axis.draw(source) if isinstance(axis, _Range) else source.choice(axis) for axis in axes.values())
        found[tuple(draw)] = None
        if len(found) == samples:
            return list(found)
    raise ValueError(f"samples is {samples}, but must be at most the number of different configurations; "
                     f"{len(found)} were found")  # fmt: skip


def _axis(sweep: str) -> tuple[str, tuple[Any, ...] | _Range]:
    """Returns a field, and its values or the range from which they are drawn."""
    name, _, text = sweep.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")

    def require(holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"sweep is {sweep!r}, but must {rule}")

    require(bool(text.strip()), "be FIELD=VALUE,VALUE,… or FIELD=loguniform:LOW,HIGH")
    require(name not in COMMON, f"not be over {name}, which all configurations share")
    hint = "".join(f"; did you mean {near}?" for near in difflib.get_close_matches(name, _SWEPT, n=1))
    require(name in _SWEPT, f"name a field of the configuration or preset{hint}")
    kind = kind_of(_SWEPT[name])
    distribution, colon, bounds = text.partition(":")
    if colon:
        try:
            low, high = map(float, bounds.split(","))
        except ValueError:
            low = high = math.nan
        is_range = distribution.strip() in ("uniform", "loguniform") and -1e30 <= low < high <= 1e30
        require(is_range, f"be {name}=uniform:LOW,HIGH or {name}=loguniform:LOW,HIGH with numbers LOW < HIGH")
        found = _Range(low, high, logarithmic=distribution.strip() == "loguniform", whole=kind.type is int)
        require(low > 0 or not found.logarithmic, "have LOW > 0 for loguniform")
        is_number = kind.type in (int, float) and not kind.is_tuple
        require(is_number, f"list the values of {name}, which is not a number")
        require(not found.whole or math.ceil(low) <= math.floor(high), "have a whole number from LOW to HIGH")
        return name, found
    words = [word.strip() for word in text.split(",")]
    require("" not in words, "not have an empty value")
    try:
        values = tuple(checked(name, from_text([word], _SWEPT[name]), _SWEPT[name]) for word in words)
    except ValueError as error:
        raise ValueError(f"sweep is {sweep!r}: {error}") from None
    require(len(set(values)) == len(values), "give each value once")
    return name, values
