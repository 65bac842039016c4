"""The axes of a sweep or a search: for each field a list of values, or a range from which numbers are drawn."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpg_jax.fields import checked, from_text, kind_of

COMMON = ("env_id", "env_args", "action_repeat", "total_steps", "eval_every", "eval_episodes", "final_episodes")
"""Fields that all configurations share: they are compared on the same task at the same steps."""

FORMS = "FIELD=VALUE,VALUE,…, FIELD=uniform:LOW,HIGH, FIELD=loguniform:LOW,HIGH or FIELD=int:LOW,HIGH"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`."""

    low: float
    high: float
    logarithmic: bool
    whole: bool

    def draw(self, source: Any) -> Any:
        """Returns a number with about four digits of the range, so that it can be read and typed again.

        Of whole numbers, uniform draws each alike, and loguniform in proportion to log(1 + 1/number).

        Args:
            source: Python's or NumPy's generator of random numbers.
        """
        low, high = self.low, self.high + self.whole
        value = source.uniform(*map(math.log, (low, high))) if self.logarithmic else source.uniform(low, high)
        value = math.exp(value) if self.logarithmic else value
        if self.whole:
            return min(math.floor(value), self.high)
        width = value * math.log(high / low) if self.logarithmic else high - low
        return self.nearest(round(float(value), 3 - math.floor(math.log10(width))))

    def nearest(self, value: float) -> Any:
        """Returns the number of the range that is nearest to a value."""
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(value)


Axis = tuple[Any, ...] | Range
"""The values of a field, or their range."""


def parse_axes(option: str, texts: Sequence[str], fields: Mapping[str, Any]) -> dict[str, Axis]:
    """Returns the values, or the range, of each field that the texts of an option name in one of `FORMS`.

    Args:
        option: the name of the option, for messages.
        texts: as they were given.
        fields: the annotations of the fields that there are.

    Raises:
        ValueError: names the option, the text and the rule.
    """
    axes = dict(_axis(option, text, fields) for text in texts)
    if len(axes) < len(texts):
        raise ValueError(f"{option} is {', '.join(texts)}, but must name each field once")
    return axes


def _axis(option: str, given: str, fields: Mapping[str, Any]) -> tuple[str, Axis]:
    name, _, text = given.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")

    def require(holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"{option} is {given!r}, but must {rule}")

    require(bool(text.strip()), f"have one of the forms {FORMS}")
    require(name not in COMMON, f"not be over {name}, which all configurations share")
    hint = "".join(f"; did you mean {near}?" for near in difflib.get_close_matches(name, fields, n=1))
    require(name in fields, f"name a field of the configuration{hint}")
    form, colon, bounds = text.partition(":")
    if colon:
        return name, _range(name, form.strip(), bounds, fields[name], require)
    words = [word.strip() for word in text.split(",")]
    require("" not in words, "not have an empty value")
    try:
        values = tuple(checked(name, from_text([word], fields[name]), fields[name]) for word in words)
    except ValueError as error:
        raise ValueError(f"{option} is {given!r}: {error}") from None
    require(len(set(values)) == len(values), "give each value once")
    return name, values


def _range(name: str, form: str, bounds: str, annotation: Any, require: Callable[[bool, str], None]) -> Range:
    kind = kind_of(annotation)
    try:
        low, high = map(float, bounds.split(","))
    except ValueError:
        low = high = math.nan
    known = form in ("uniform", "loguniform", "int") and -1e30 <= low < high <= 1e30
    require(known, "have uniform:LOW,HIGH, loguniform:LOW,HIGH or int:LOW,HIGH with numbers LOW < HIGH")
    require(kind.type in (int, float) and not kind.is_tuple, f"list the values of {name}, which is not a number")
    require(low > 0 or form != "loguniform", "have LOW > 0 for loguniform")
    if kind.type is not int:
        require(form != "int", f"not be over whole numbers, because {name} is a fraction: use uniform")
        return Range(low, high, form == "loguniform", whole=False)
    require(math.ceil(low) <= math.floor(high), "have a whole number from LOW to HIGH")
    return Range(math.ceil(low), math.floor(high), form == "loguniform", whole=True)
