"""The seconds of a run, by what they were spent on."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_COUNTS = ("compiling", "training", "evaluating", "saving")


class Stopwatch:
    """Counts the seconds of a run, including those of the processes that it continues."""

    def __init__(self, started: float | None = None) -> None:
        """Args:
        started: `time.perf_counter()` at the start of the process; default: now.
        """
        self.compiling = self.training = self.evaluating = self.saving = 0.0
        self._earlier, self._started = 0.0, time.perf_counter() if started is None else started

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
        return self._earlier + time.perf_counter() - self._started

    def counts(self) -> dict[str, float]:
        """Returns the argument of `restore`."""
        return {name: getattr(self, name) for name in (*_COUNTS, "wall")}

    def restore(self, counts: Mapping[str, float]) -> None:
        """Adds the counts of an earlier process."""
        self._earlier += counts["wall"]
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + counts[name])
