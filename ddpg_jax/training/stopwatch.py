"""The seconds of a run, by what they were spent on."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_COUNTS = ("compiling", "training", "evaluating", "saving")


class Stopwatch:
    """Counts the seconds of a run, including those of the processes that it continues."""

    def __init__(self, started: float | None = None) -> None:
        """Starts at `started`, of `time.perf_counter()`; default: now."""
        self.compiling = self.training = self.evaluating = self.saving = 0.0
        self._started = time.perf_counter() if started is None else started

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Adds the seconds spent inside to one of the four counts."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.perf_counter() - start)

    @property
    def wall(self) -> float:
        """Seconds since the start of the run."""
        return time.perf_counter() - self._started

    def counts(self) -> dict[str, float]:
        """Returns the argument of `restore`."""
        return {name: getattr(self, name) for name in (*_COUNTS, "wall")}

    def restore(self, counts: Mapping[str, float]) -> None:
        """Adds the counts of an earlier process."""
        self._started -= counts["wall"]
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + counts[name])
