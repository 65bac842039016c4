"""Numbers as text, and as what JSON holds."""

import json
import math
from typing import Any


def decimal(value: float, places: int = 1) -> str:
    """Returns a number with this many decimal places; an empty text if it is not finite."""
    return f"{value:.{places}f}" if math.isfinite(value) else ""


def interval(bounds: tuple[float, float], places: int = 1) -> str:
    """Returns an interval with this many decimal places; an empty text if a bound is not finite."""
    texts = [decimal(bound, places) for bound in bounds]
    return f"[{', '.join(texts)}]" if all(texts) else ""


def json_values(content: Any) -> Any:
    """Returns values in Python's own types: NumPy's become lists and numbers, numbers that are not finite None."""
    text = json.dumps(content, default=lambda value: value.tolist())
    return json.loads(text, parse_constant=lambda _: None)
