"""Sweeps: the configurations of a grid or of a random search, each trained with many seeds."""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ddpg_jax.axes import COMMON, Range, parse_axes
from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.fields import format_value
from ddpg_jax.presets import PRESETS, preset

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
        sweeps: a field with its values or its range each (`axes.FORMS`).
        samples: number of configurations of a random search; None: the grid.
        seed: of the random search.
        make_config: returns the configuration with some values changed.
    """
    axes: dict[str, Any] = parse_axes("sweep", sweeps, _SWEPT)
    drawn = [name for name, axis in axes.items() if isinstance(axis, Range)]
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


def _draw(axes: dict[str, Any], samples: int, seed: int) -> list[tuple[Any, ...]]:
    """Returns different combinations, each field drawn independently; raises ValueError if there are too few."""
    source = random.Random(seed)
    found: dict[tuple[Any, ...], None] = {}
    for _ in range(100 * samples):
        draw = (axis.draw(source) if isinstance(axis, Range) else source.choice(axis) for axis in axes.values())
        found[tuple(draw)] = None
        if len(found) == samples:
            return list(found)
    raise ValueError(f"samples is {samples}, but must be at most the number of different configurations; "
                     f"{len(found)} were found")  # fmt: skip
