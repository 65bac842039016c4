"""Provides what the scripts of all peers share: options, clock and peak memory.

It uses only the standard library, because it runs in every peer's own environment. A script creates a `Meter`, calls
its `advanced` after every step until that returns True, and ends with `Meter.report`, which prints `MARK` and one line
of JSON.
"""

import argparse
import json
import os
import resource
import sys
import time
from importlib import metadata
from pathlib import Path

MARK = "PEER-RESULT "
WARM_UP_STEPS = 200
"""Steps of each agent before the timed window; they include the compilation of the first update."""
START_STEPS = 5
"""Steps after which a peer counts as started; they include the first updates."""


def options() -> argparse.Namespace:
    """Returns the options on the command line; the last two are for this project only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the timed window")
    parser.add_argument("--matmul-dtype", default="float32")
    parser.add_argument("--env-id", default="Pendulum-v1")
    return parser.parse_args()


class Meter:
    """Counts steps from the interpreter's start to the end of the timed window."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.steps = options, 0
        self.started = float(os.environ.get("PEER_STARTED", time.time()))
        self.startup_seconds: float | None = None
        self._window: list[tuple[float, int]] = []
        """The clock and the steps at the beginning of the timed window, and at the last step."""

    def ready(self) -> None:
        """Marks the end of the start: nothing is left to compile."""
        self.startup_seconds = time.time() - self.started

    def advanced(self, steps: int = 1) -> bool:
        """Counts steps of each agent; returns True when the measurement is complete."""
        self.steps += steps
        if self.startup_seconds is None and self.steps >= START_STEPS:
            self.ready()
        if self.steps >= WARM_UP_STEPS:
            self._window = [*self._window[:1], (time.perf_counter(), self.steps)]
        return len(self._window) == 2 and self._window[1][0] - self._window[0][0] >= self.options.seconds

    def report(self, versions: dict[str, str]) -> None:
        """Prints the measurements."""
        (start, before), (end, after) = self._window
        result = {
            "steps_per_second": (after - before) / (end - start) * self.options.agents,
            "startup_seconds": self.startup_seconds,
            "peak_megabytes": peak_megabytes(),
            "steps": self.steps,
            "python": sys.version.split()[0],
            "versions": versions,
        }
        print(MARK + json.dumps(result), flush=True)


def versions(*names: str) -> dict[str, str]:
    """Returns the versions of installed packages."""
    return {name: metadata.version(name) for name in names}


def peak_megabytes() -> float:
    """Returns the peak memory of this process, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
