"""What the scripts of all peers share: their options, the clock, the peak of memory, and the greedy evaluation.

Only NumPy and the standard library, since it runs in every peer's own environment. A script builds its agent, makes a
`Meter`, tells it of every step (`advanced`) until it has seen enough, and ends with `Meter.report`, which prints one
line of JSON behind `MARK`.
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
"""Steps of each agent that are not timed, the first update's compilation among them."""
START_STEPS = 5
"""Steps after which a peer counts as started: with the first updates in them."""
STARTS = Path(__file__).parents[2] / "ddpg_jax" / "data" / "pendulum_optimum.npz"
"""Start states that all agents are evaluated from, with the best return that can be had from each."""


@dataclass(frozen=True)
class Options:
    """What a script is asked for."""

    agents: int
    seed: int
    seconds: float
    """Length of the timed window."""
    total_steps: int | None
    """Train each agent for exactly so many steps, and evaluate it; instead of a timed window."""


def options() -> Options:
    """The options on the command line."""
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
        """The next step will be the first, and nothing is left to compile."""
        self.startup_seconds = time.time() - self.started

    def advanced(self, steps: int = 1) -> bool:
        """Each agent has taken so many steps more; returns whether that was enough."""
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
        """Prints what was measured; evaluates the policy, observations [S, 3] -> actions [S, 1], if that was asked."""
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
    """The versions of installed distributions."""
    return {name: metadata.version(name) for name in names}


def peak_megabytes() -> float:
    """Most memory that this process has held, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def greedy_returns(policy: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns [S] of one greedy episode from each start state, in Gymnasium's Pendulum-v1, and the highest ones [S]."""
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
