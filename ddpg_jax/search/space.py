"""The space of a search: for each tuned field a range or a list of values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpg_jax.axes import FORMS, Axis, Range, parse_axes
from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.fields import format_value, from_text, kind_of

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """The tuned fields of a configuration."""

    base: Config
    """Has the values of all other fields."""
    axes: Mapping[str, Axis]

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
        return {name: _distribution(axis) for name, axis in self.axes.items()}

    def draw(self, rng: "np.random.Generator") -> dict[str, Any]:
        """Draws a value of each field."""
        return {name: _draw(axis, rng) for name, axis in self.axes.items()}

    def move(self, values: Mapping[str, Any], rng: "np.random.Generator") -> dict[str, Any]:
        """Moves each value a little, or, with probability 1/4, draws it again (Jaderberg et al. 2017, section 4.1).

        Numbers of a range are multiplied by 0.8 or 1.25, and one of a list becomes the one before or after it.
        """
        return {name: _draw(axis, rng) if rng.random() < 0.25 else _move(axis, values[name], rng)
                for name, axis in self.axes.items()}  # fmt: skip


def _distribution(axis: Axis) -> "BaseDistribution":
    """Returns Optuna's distribution; in it, values of several numbers, such as 64x64, are text."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(axis, Range):
        return CategoricalDistribution([format_value(v) if isinstance(v, tuple) else v for v in axis])
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.logarithmic)
    return FloatDistribution(axis.low, axis.high, log=axis.logarithmic)


def _draw(axis: Axis, rng: "np.random.Generator") -> Any:
    return axis.draw(rng) if isinstance(axis, Range) else axis[rng.integers(len(axis))]


def _move(axis: Axis, value: Any, rng: "np.random.Generator") -> Any:
    if isinstance(axis, Range):
        return axis.nearest(value * rng.choice([0.8, 1.25]))
    index = axis.index(value) + rng.choice([-1, 1])
    return axis[min(max(index, 0), len(axis) - 1)]


def ends(axis: Axis) -> tuple[Any, ...]:
    """Returns the least and the largest number of a range, or all values of a list."""
    return (axis.low, axis.high) if isinstance(axis, Range) else axis


def describe(values: Mapping[str, Any]) -> str:
    """Returns values as text, numbers with four digits: "tau=0.01235, hidden_sizes=64x64"."""
    return ", ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """Returns a value as text, a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else format_value(value)


def parse_space(base: Config, texts: Sequence[str]) -> Space:
    """Returns the space that texts such as "actor_lr=loguniform:1e-4,1e-2" describe (see `axes.FORMS`).

    Raises:
        ValueError: names the text, the value and the rule.
    """
    if not texts:
        raise ValueError(f"tune is not given, but must name what to tune: {FORMS}")
    axes = parse_axes("tune", texts, ANNOTATIONS)
    for text, (name, axis) in zip(texts, axes.items(), strict=True):
        if len(ends(axis)) < 2:
            raise ValueError(f"tune is {text!r}, but must list at least two values")
        for value in ends(axis):
            try:
                base.replace(**{name: value})
            except ValueError as error:
                raise ValueError(f"tune is {text!r}: {error}") from None
        if not isinstance(axis, Range) and all(isinstance(value, int | float) for value in axis):
            axes[name] = tuple(sorted(axis))
    return Space(base, axes)
