"""Numbers as text."""

import math


def decimal(value: float, places: int = 1) -> str:
    """Returns a number with this many decimal places; an empty text if it is not finite."""
    return f"{value:.{places}f}" if math.isfinite(value) else ""


def interval(bounds: tuple[float, float], places: int = 1) -> str:
    """Returns an interval with this many decimal places; an empty text if a bound is not finite."""
    texts = [decimal(bound, places) for bound in bounds]
    return f"[{', '.join(texts)}]" if all(texts) else ""
