"""Provides what the scripts of all peers share: options, clock, peak memory and greedy evaluation.

It uses only NumPy and the standard library, because it runs in every peer's own environment. A script creates a
`Meter`, calls its `advanced` after every step until that returns True, and ends with `Meter.report`, which prints
`MARK` and one line of JSON.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

MARK = "PEER-RESULT "
WARM_UP_STEPS = 200
"""Steps of each agent before the timed window; they include the compilation of the first update."""
START_STEPS = 5
"""Steps after which a peer counts as started; they include the first updates."""
STARTS = Path(__file__).parents[2] / "ddpg_jax" / "environments" / "data" / "pendulum_optimum.npz"
"""Start states from which all agents are evaluated, with the highest return that can be reached from each."""


@dataclass(frozen=True)
class Options:
    """The options of a script."""

    agents: int
    seed: int
    seconds: float
    """Length of the timed window, in seconds."""
    total_steps: int | None
    """If given, each agent is trained for exactly this many steps and then evaluated, instead of a timed window."""


def options() -> Options:
    """Returns the options on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--total-steps", type=int)
    return Options(**vars(parser.parse_args()))


class Meter:
    """Counts steps from the interpreter's start to the end of the timed window."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started = float(os.environ.get("PEER_STARTED", time.time()))
        self.startup_seconds: float | None = None
        self.steps = 0
        self._window: tuple[float, int] | None = None
        self._end: tuple[float, int] | None = None

    def ready(self) -> None:
        """Marks the end of the start: nothing is left to compile."""
        self.startup_seconds = time.time() - self.started

    def advanced(self, steps: int = 1) -> bool:
        """Counts steps of each agent; returns True when the measurement is complete."""
        self.steps += steps
        now = time.perf_counter()
        if self.startup_seconds is None and self.steps >= START_STEPS:
            self.ready()
        if self._window is None:
            if self.steps >= WARM_UP_STEPS:
                self._window = now, self.steps
        else:
            self._end = now, self.steps
        if self.options.total_steps is not None:
            return self.steps >= self.options.total_steps
        return self._end is not None and now - self._window[0] >= self.options.seconds if self._window else False

    def report(self, versions: dict[str, str], policy: Callable[[np.ndarray], np.ndarray]) -> None:
        """Prints the measurements.

        With `total_steps` it also evaluates the policy, which maps observations [S, 3] to actions [S, 1].
        """
        result = {
            "steps_per_second": self._rate() * self.options.agents,
            "startup_seconds": self.startup_seconds,
            "peak_megabytes": peak_megabytes(),
            "steps": self.steps,
            "python": sys.version.split()[0],
            "versions": versions,
        }
        if self.options.total_steps is not None:
            returns, optimum = greedy_returns(policy)
            result |= {"greedy_return": float(returns.mean()), "shortfall": float((optimum - returns).mean())}
        print(MARK + json.dumps(result), flush=True)

    def _rate(self) -> float:
        if self._window is None or self._end is None:
            return float("nan")
        return (self._end[1] - self._window[1]) / (self._end[0] - self._window[0])


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


def greedy_returns(policy: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Evaluates a policy in the equations of Gymnasium's Pendulum-v1, one greedy episode from each start state.

    Returns:
        The returns [S], and the highest returns [S] that can be reached.
    """
    with np.load(STARTS, allow_pickle=False) as table:
        theta, theta_dot, optimum = (table[name].astype(float) for name in ("theta", "theta_dot", "return_optimal"))
    total = np.zeros(len(theta))
    for _ in range(200):
        observation = np.stack([np.cos(theta), np.sin(theta), theta_dot], axis=1).astype(np.float32)
        torque = np.clip(np.asarray(policy(observation), float).reshape(len(theta)), -2, 2)
        angle = (theta + np.pi) % (2 * np.pi) - np.pi
        total -= angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2
        theta_dot = np.clip(theta_dot + (15 * np.sin(theta) + 3 * torque) * 0.05, -8, 8)
        theta = theta + theta_dot * 0.05
    return total, optimum
