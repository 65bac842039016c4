"""Values of a configuration as text, in the form in which the command line takes them."""

from collections.abc import Mapping
from typing import Any


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple | list):
        return "x".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(values: Mapping[str, Any]) -> str:
    """The values of a point, as the command line takes them."""
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())
