"""Numbers and the values of a configuration, as text."""

import math
from collections.abc import Mapping
from typing import Any


def shown(value: Any) -> str:
    """Returns a value of a configuration as the command line takes it."""
    if isinstance(value, tuple | list):
        between = "x" if all(isinstance(item, int) for item in value) else " "
        return between.join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(values: Mapping[str, Any]) -> str:
    """Returns the values of a sweep's point as the command line takes them."""
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())


def significant(value: float, digits: int) -> str:
    """Returns a number with at most this many significant digits; an empty text if it is not finite."""
    return f"{value:.{digits}g}" if math.isfinite(value) else ""


def decimal(value: float, places: int = 1) -> str:
    """Returns a number with this many decimal places; an empty text if it is not finite."""
    return f"{value:.{places}f}" if math.isfinite(value) else ""


def interval(bounds: tuple[float, float], places: int = 1) -> str:
    """Returns an interval with this many decimal places; an empty text if a bound is not finite."""
    texts = [decimal(bound, places) for bound in bounds]
    return f"[{', '.join(texts)}]" if all(texts) else ""
