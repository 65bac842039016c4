"""The space of a search: for each tuned field a range or a list of values."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.fields import checked, format_value, from_text, kind_of
from ddpg_jax.sweep import COMMON

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution

FORMS = "NAME=loguniform:LOW,HIGH, NAME=uniform:LOW,HIGH, NAME=int:LOW,HIGH or NAME=VALUE,VALUE,…"


class Range(NamedTuple):
    """Numbers from `low` to `high`."""

    low: float
    high: float
    logarithmic: bool
    whole: bool

    def distribution(self) -> "BaseDistribution":
        """Returns the range as Optuna's distribution."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.logarithmic)
        return FloatDistribution(self.low, self.high, log=self.logarithmic)

    def ends(self) -> tuple[Any, ...]:
        """Returns the least and the largest number."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def draw(self, rng: "np.random.Generator") -> Any:
        """Draws a number of the range."""
        if self.logarithmic:
            return self._within(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return self._within(rng.uniform(self.low, self.high))

    def move(self, value: Any, rng: "np.random.Generator") -> Any:
        """Multiplies a number by 0.8 or 1.25, within the range."""
        return self._within(value * rng.choice([0.8, 1.25]))

    def _within(self, value: float) -> Any:
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(value)


class Choices(NamedTuple):
    """A list of values, in the type of their field."""

    values: tuple[Any, ...]

    def distribution(self) -> "BaseDistribution":
        """Returns the values as Optuna's distribution; those of several numbers, such as 64x64, are text in it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([format_value(v) if isinstance(v, tuple) else v for v in self.values])

    def ends(self) -> tuple[Any, ...]:
        """Returns all values."""
        return self.values

    def draw(self, rng: "np.random.Generator") -> Any:
        """Draws one of the values."""
        return self.values[rng.integers(len(self.values))]

    def move(self, value: Any, rng: "np.random.Generator") -> Any:
        """Returns the value before or after this one in the list, or the same at its ends."""
        index = self.values.index(value) + rng.choice([-1, 1])
        return self.values[min(max(index, 0), len(self.values) - 1)]


@dataclass(frozen=True)
class Space:
    """The tuned fields of a configuration."""

    base: Config
    """Has the values of all other fields."""
    axes: Mapping[str, Range | Choices]

    def config(self, params: Mapping[str, Any]) -> Config:
        """Returns the configuration with these values, which may be Optuna's; ValueError names one that is refused."""
        return self.base.replace(**self.values(params))

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns Optuna's values as those of the fields."""
        found = {}
        for name, value in params.items():
            is_text = kind_of(ANNOTATIONS[name]).is_tuple and isinstance(value, str)
            found[name] = from_text([value], ANNOTATIONS[name]) if is_text else value
        return found

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """Returns Optuna's distributions."""
        return {name: axis.distribution() for name, axis in self.axes.items()}

    def draw(self, rng: "np.random.Generator") -> dict[str, Any]:
        """Draws a value of each field."""
        return {name: axis.draw(rng) for name, axis in self.axes.items()}

    def move(self, values: Mapping[str, Any], rng: "np.random.Generator") -> dict[str, Any]:
        """Moves each value a little, or, with probability 1/4, draws it again (Jaderberg et al. 2017, section 4.1)."""
        return {name: axis.draw(rng) if rng.random() < 0.25 else axis.move(values[name], rng)
                for name, axis in self.axes.items()}  # fmt: skip


def describe(values: Mapping[str, Any]) -> str:
    """Returns values as text, numbers with four digits: "tau=0.01235, hidden_sizes=64x64"."""
    return ", ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """Returns a value as text, a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else format_value(value)


def parse_space(base: Config, texts: Sequence[str]) -> Space:
    """Returns the space that texts such as "actor_lr=loguniform:1e-4,1e-2" describe (see `FORMS`).

    Raises:
        ValueError: names the text, the value and the rule.
    """
    if not texts:
        raise ValueError(f"tune is not given, but must name what to tune: {FORMS}")
    axes = dict(map(_axis, texts))
    if len(axes) < len(texts):
        raise ValueError(f"tune is {', '.join(texts)}, but must name each field once")
    for text, (name, axis) in zip(texts, axes.items(), strict=True):
        for value in axis.ends():
            try:
                base.replace(**{name: value})
            except ValueError as error:
                raise ValueError(f"tune is {text!r}: {error}") from None
    return Space(base, axes)


def _axis(text: str) -> tuple[str, Range | Choices]:
    name, _, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")

    def require(holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"tune is {text!r}, but must {rule}")

    require(bool(values.strip()), f"have one of the forms {FORMS}")
    near = difflib.get_close_matches(name, ANNOTATIONS, n=1)
    require(name in ANNOTATIONS, f"name a field of the configuration{f'; did you mean {near[0]}?' if near else ''}")
    require(name not in COMMON, f"not be over {name}, which all trials share")
    kind, (distribution, colon, bounds) = kind_of(ANNOTATIONS[name]), values.partition(":")
    if colon:
        return name, _range(name, distribution.strip(), bounds, require)
    words = [word.strip() for word in values.split(",")]
    require("" not in words, "not have an empty value")
    try:
        found = tuple(checked(name, from_text([word], ANNOTATIONS[name]), ANNOTATIONS[name]) for word in words)
    except ValueError as error:
        raise ValueError(f"tune is {text!r}: {error}") from None
    require(1 < len(set(found)) == len(found), "list at least two values, each once")
    is_number = kind.type in (int, float) and not kind.is_tuple
    return name, Choices(tuple(sorted(found)) if is_number and None not in found else found)


def _range(name: str, distribution: str, bounds: str, require: Any) -> Range:
    kind = kind_of(ANNOTATIONS[name])
    try:
        low, high = map(float, bounds.split(","))
    except ValueError:
        low = high = math.nan
    known = distribution in ("uniform", "loguniform", "int") and -1e30 <= low < high <= 1e30
    require(known, f"be {name}=loguniform:LOW,HIGH, uniform:LOW,HIGH or int:LOW,HIGH with numbers LOW < HIGH")
    require(kind.type in (int, float) and not kind.is_tuple, f"list the values of {name}, which is not a number")
    require(low > 0 or distribution != "loguniform", "have LOW > 0 for loguniform")
    whole = kind.type is int
    require(whole or distribution != "int", f"not be over whole numbers, because {name} is a fraction: use uniform")
    require(not whole or (low % 1 == 0 and high % 1 == 0), f"have whole numbers, as {name} is one")
    return Range(low, high, distribution == "loguniform", whole)
