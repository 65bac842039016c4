"""The seconds of a run, by what they were spent on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Counts seconds of compilation, training, evaluation and checkpoints."""

    compiling: float = 0.0
    training: float = 0.0
    evaluating: float = 0.0
    saving: float = 0.0
    earlier: float = 0.0
    """Seconds of the processes that this one continues."""
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Adds the seconds spent inside to one of the counts."""
        start = time.perf_counter()
        yield
        setattr(self, what, getattr(self, what) + time.perf_counter() - start)

    @property
    def wall(self) -> float:
        """Seconds since the start of the run."""
        return self.earlier + time.perf_counter() - self.started

    def counts(self) -> dict[str, float]:
        """Returns what `restore` needs."""
        names = ("compiling", "training", "evaluating", "saving")
        return {name: getattr(self, name) for name in names} | {"earlier": self.wall}

    def restore(self, counts: dict[str, float]) -> None:
        """Adds the counts of an earlier process."""
        for name, seconds in counts.items():
            setattr(self, name, getattr(self, name) + seconds)
