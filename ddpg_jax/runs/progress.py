"""The progress of a run in the terminal."""

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ddpg_jax.results.history import Episodes
from ddpg_jax.runs.divergence import Divergence


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} steps/s")


class Silent:
    """Shows no progress; the base of what does."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advanced(self, agent_steps: int) -> None:
        """Does nothing."""

    def ended(self, episodes: Episodes) -> None:
        """Does nothing."""

    def evaluated(self, returns: np.ndarray) -> None:
        """Does nothing."""

    def diverged(self, agent: int, divergence: Divergence) -> None:
        """Does nothing."""


class Bar(Silent):
    """Shows a bar with the agents' steps, their rate, the time left, and the last evaluation's returns.

    Where the output is not a terminal, a line at every tenth of the way instead.
    """

    def __init__(self, console: Console, total_agent_steps: int, *, verbose: bool = False) -> None:
        self._console, self._verbose = console, verbose
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("steps"),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[returns]}"),
            console=console,
            speed_estimate_period=10,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=total_agent_steps, returns="")
        self._total, self._done, self._announced = total_agent_steps, 0, 0
        self._returns = ""

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advanced(self, agent_steps: int) -> None:
        """Moves the bar."""
        self._progress.advance(self._task, agent_steps)
        self._done += agent_steps

    def evaluated(self, returns: np.ndarray) -> None:
        """Shows the median and the worst return."""
        if len(returns):
            self._returns = f"return: median {np.median(returns):.1f}, worst {np.min(returns):.1f}"
            self._progress.update(self._task, returns=self._returns)
        tenth = 10 * self._done // self._total
        if self._progress.disable and tenth > self._announced:
            self._announced = tenth
            parts = [f"{self._done:,} of {self._total:,} steps", *filter(None, [self._returns])]
            self._console.print("; ".join(parts), highlight=False)

    def diverged(self, agent: int, divergence: Divergence) -> None:
        """Prints a line that says so."""
        reason = divergence.fault or "its numbers are no longer finite"
        self._console.print(
            f"agent {agent} diverged at step {divergence.env_steps:,}: {reason}; it is left out", highlight=False
        )

    def ended(self, episodes: Episodes) -> None:
        """Prints a line per episode if `verbose`, as the TensorFlow gist does."""
        if self._verbose:
            for agent, episode, _, value, length, scale in zip(*episodes, strict=True):
                self._console.print(
                    f"Agent {agent:3d}, episode {episode:4d}, return: {value:9.3f}, "
                    f"steps: {length}, final noise scale: {scale:7.3f}",
                    highlight=False,
                )
