"""The progress of a run: a bar in a terminal, a line that updates itself in a notebook, lines in a log file."""

import sys
import time
from collections import deque
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from ddpg_jax.results.history import Episodes

_RATE_SECONDS = 30.0  # the rate changes when updates begin, and from one setup to the next


class Progress:
    """Follows a run, and describes it in lines: at each tenth, and where something happens.

    It counts the environment steps of all agents together. If `verbose`, it shows a line per training episode.
    """

    _updates = False  # whether `_show` replaces the text that it has shown before, so that no lines are needed

    def __init__(self, total_agent_steps: int, *, verbose: bool = False) -> None:
        self._total, self._verbose = max(1, total_agent_steps), verbose
        self._done, self._line_due, self._returns = 0, False, ""
        self._samples: deque[tuple[float, int]] = deque()
        self._encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._print_line_if_due()

    def compiling(self, text: str) -> None:
        """Shows that a program is compiled; the time that it takes does not count for the rate."""
        self._print_line_if_due()
        self._samples.clear()
        self._show(text)

    def advanced(self, agent_steps: int, *, resumed: bool = False) -> None:
        """Counts steps; `resumed`: an earlier process has made them."""
        self._print_line_if_due()
        tenths = 10 * self._done // self._total
        self._done += agent_steps
        if not resumed:
            self._line_due = 10 * self._done // self._total > tenths
            self._samples.append((time.monotonic(), self._done))
            while len(self._samples) > 2 and self._samples[-1][0] - self._samples[1][0] > _RATE_SECONDS:
                self._samples.popleft()
        self._show_state()

    def evaluated(self, env_steps: int, returns: np.ndarray, optimum: float | None) -> None:
        """Shows the last evaluation, averaged over the start states: returns [N], NaN where agents have diverged."""
        finite = returns[np.isfinite(returns)]
        if len(finite):
            best = "" if optimum is None else f" (optimum {optimum:,.1f})"
            self._returns = f"; return: median {np.median(finite):,.1f}{best}, worst {np.min(finite):,.1f}"
        self._print_line_if_due()
        self._show_state()

    def episodes_ended(self, episodes: Episodes) -> None:
        """Shows a line per training episode if `verbose`, as the TensorFlow gist does."""
        columns = (episodes.agent, episodes.episode, episodes.episode_return, episodes.length, episodes.noise_scale)
        text = "Agent {:3d}, episode {:4d}, return: {:9.3f}, steps: {}, final noise scale: {:7.3f}"
        if self._verbose and len(episodes.agent):
            self.message("\n".join(map(text.format, *columns)))

    def diverged(self, agent: int, env_steps: int, fault: str | None) -> None:
        """Shows that an agent has diverged, and the value from the environment that was not finite, if it was one."""
        reason = fault or "its values are no longer finite"
        self.message(f"agent {agent} diverged at step {env_steps:,}: {reason}; it is left out of the statistics")

    def message(self, text: str) -> None:
        """Shows a text."""
        print(self._printable(text), flush=True)

    def _printable(self, text: str) -> str:
        return text.encode(self._encoding, "replace").decode(self._encoding)

    def _show(self, text: str) -> None:
        self.message(text)

    def _show_state(self) -> None:
        if self._updates:
            self._show(self._state())

    def _print_line_if_due(self) -> None:
        """Prints the state after a tenth, and after the evaluation that may follow it."""
        if self._line_due and not self._updates:
            self.message(self._state())
        self._line_due = False

    def _state(self) -> str:
        """Returns the steps and, as far as they are known, the rate, the time left, and the last evaluation."""
        text = f"{self._done:,} of {self._total:,} steps ({100 * self._done // self._total}%)"
        if len(self._samples) > 1:
            (start, before), (end, after) = self._samples[0], self._samples[-1]
            rate = max(1e-9, (after - before) / max(1e-9, end - start))
            text += f", {rate:,.0f} steps/s"
            text += f", {_duration((self._total - self._done) / rate)} left" if self._done < self._total else ""
        return text + self._returns


class NullProgress(Progress):
    """Shows nothing."""

    def message(self, text: str) -> None:
        """Does nothing."""


class BarProgress(Progress):
    """Shows a bar in a terminal, and messages above it."""

    _updates = True

    def __init__(self, total_agent_steps: int, *, verbose: bool = False) -> None:
        super().__init__(total_agent_steps, verbose=verbose)
        console = Console(markup=False, emoji=False, highlight=False)
        spinner = SpinnerColumn("dots" if console.encoding.startswith("utf") else "line")
        state = TextColumn("{task.description}", markup=False, table_column=Column())  # wraps in a narrow terminal
        self._bar = RichProgress(spinner, BarColumn(bar_width=24), state, console=console)
        self._task = self._bar.add_task("", total=self._total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        self._bar.console.print(self._printable(text), soft_wrap=True)

    def _show(self, text: str) -> None:
        self._bar.update(self._task, completed=self._done, description=self._printable(text))


class NotebookProgress(Progress):
    """Shows a line in a notebook that updates itself, at most five times per second."""

    _updates = True
    _line: Any = None
    _shown_at = 0.0

    def __exit__(self, *_: object) -> None:
        self._show(self._state())

    def _show_state(self) -> None:
        if time.monotonic() - self._shown_at > 0.2:
            super()._show_state()

    def _show(self, text: str) -> None:
        from IPython.display import display

        self._shown_at = time.monotonic()
        if self._line is None:
            self._line = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._line.update({"text/plain": text}, raw=True)


def make_progress(kind: bool | str, total_agent_steps: int, *, verbose: bool = False) -> Progress:
    """Returns the progress of a kind: "bar", "notebook" or "lines"; True: what suits the output; False: nothing.

    Raises:
        ValueError: if `kind` is something else.
    """
    variants = {False: NullProgress, "bar": BarProgress, "notebook": NotebookProgress, "lines": Progress}
    chosen = _suitable_kind() if kind is True else kind
    if chosen not in variants:
        raise ValueError(f"progress is {kind!r}, but must be True, False, 'bar', 'notebook' or 'lines'")
    return variants[chosen](total_agent_steps, verbose=verbose)


def _suitable_kind() -> str:
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        return "notebook"
    # Rich takes every output for a terminal where FORCE_COLOR is set.
    return "bar" if sys.stdout.isatty() and Console().is_interactive else "lines"


def _duration(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
