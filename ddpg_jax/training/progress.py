"""The progress of a run: a bar in a terminal, a line that updates itself in a notebook, lines in a log file."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from ddpg_jax.results.history import Episodes

_RATE_SECONDS = 30.0  # over which the rate is averaged
_SILENCE = 30.0  # seconds after which a line is due


class Progress:
    """Follows a run, and describes it in lines: at each tenth, where something happens, and every 30 seconds.

    It counts the environment steps of all agents together. If `verbose`, it shows a line per training episode.
    """

    _updates_itself = False  # whether `_show` replaces the text that it has shown before, so that no lines are needed

    def __init__(self, total_agent_steps: int, num_agents: int | None = None, *, verbose: bool = False) -> None:
        self._total, self._num_agents, self._verbose = max(1, total_agent_steps), num_agents, verbose
        self._done, self._line_due, self._returns = 0, False, ""
        self._samples: deque[tuple[float, float]] = deque()  # times, and the work that was done until then
        self._work_per_step, self._unit = 1.0, "steps/s"
        self._activity, self._part = "", 0.0  # what is done between steps; how much of it is done
        self._began = self._spoke = time.monotonic()
        self._encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self._ended = threading.Event()
        self._reminder = threading.Thread(target=self._break_silence, daemon=True)

    def __enter__(self) -> Self:
        if not self._updates_itself:
            self._reminder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._reminder.is_alive():
            self._reminder.join()
        self._activity = ""
        self._print_line_if_due()
        self._show_state()

    def _break_silence(self) -> None:
        """Prints a line where nothing else has been printed for a while, also while the main thread is busy."""
        while not self._ended.wait(0.5):
            if time.monotonic() - self._spoke >= _SILENCE:
                self.message(self._state())

    def compiling(self, text: str) -> None:
        """Shows that a program is compiled; the time that it takes does not count for the rate."""
        self._print_line_if_due()
        self._samples.clear()
        self._activity, self._part, self._began = text, 0.0, time.monotonic()
        self._show(text)

    def advanced(self, agent_steps: int, updates: float | None = None, *, resumed: bool = False) -> None:
        """Counts steps, and the updates in them if they are known; `resumed`: an earlier process has made them."""
        self._print_line_if_due()
        self._activity, tenths = "", 10 * self._done // self._total
        self._done += agent_steps
        if not resumed:
            self._line_due = 10 * self._done // self._total > tenths
            work, self._unit = (agent_steps, "steps/s") if updates is None else (updates, "updates/s")
            self._work_per_step = work / max(1, agent_steps)
            self._samples.append((time.monotonic(), work + (self._samples[-1][1] if self._samples else 0)))
            while len(self._samples) > 2 and self._samples[-1][0] - self._samples[1][0] > _RATE_SECONDS:
                self._samples.popleft()
        self._show_state()

    def evaluating(self, num_episodes: int) -> Callable[[float], None]:
        """Shows that the final evaluation begins; returns what counts its episodes per agent."""
        self._print_line_if_due()
        done = 0.0

        def count(episodes: float) -> None:
            nonlocal done
            done += episodes
            self._part = done / num_episodes
            self._activity = f"final evaluation: {done:,.0f} of {num_episodes:,} episodes per agent"
            self._show_state()

        self._began = time.monotonic()
        count(0)
        return count

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
        self._spoke = time.monotonic()
        print(self._printable(text) + "\n", end="", flush=True)  # in one piece, because of the reminder's thread

    def _printable(self, text: str) -> str:
        return text.encode(self._encoding, "replace").decode(self._encoding)

    def _show(self, text: str) -> None:
        self.message(text)

    def _show_state(self) -> None:
        if self._updates_itself:
            self._show(self._state())

    def _print_line_if_due(self) -> None:
        """Prints the state after a tenth, and after the evaluation that may follow it."""
        if self._line_due and not self._updates_itself:
            self.message(self._state())
        self._line_due = False

    def _state(self) -> str:
        """Returns what is done now and since when, or the steps with the rate, the time left and the evaluation."""
        if self._activity:
            return f"{self._activity}, {_duration(time.monotonic() - self._began)}"
        each, per_agent = (self._num_agents, " per agent") if self._num_agents else (1, "")
        text = f"{self._done // each:,} of {self._total // each:,} steps{per_agent}"
        text += f" ({100 * self._done // self._total}%)"
        samples = list(self._samples) or [(0.0, 0.0)]  # a copy: the reminder has a thread of its own
        (start, before), (end, after) = samples[0], samples[-1]
        if after > before:  # there is no rate before the first update
            rate = (after - before) / max(1e-9, end - start)
            left = (self._total - self._done) * self._work_per_step / rate
            text += f", {rate:,.0f} {self._unit}{f', {_duration(left)} left' if self._done < self._total else ''}"
        return text + self._returns


class NullProgress(Progress):
    """Shows nothing."""

    _updates_itself = True

    def message(self, text: str) -> None:
        """Does nothing."""


class BarProgress(Progress):
    """Shows a bar in a terminal, and messages above it."""

    _updates_itself = True

    def __init__(self, total_agent_steps: int, num_agents: int | None = None, *, verbose: bool = False) -> None:
        super().__init__(total_agent_steps, num_agents, verbose=verbose)
        console = Console(markup=False, emoji=False, highlight=False)
        spinner = SpinnerColumn("dots" if console.encoding.startswith("utf") else "line")
        state = TextColumn("{task.description}", markup=False, table_column=Column())  # wraps in a narrow terminal
        self._bar = RichProgress(spinner, BarColumn(bar_width=24), state, console=console)
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self._bar.stop()

    def message(self, text: str) -> None:
        self._bar.console.print(self._printable(text), soft_wrap=True)

    def _show(self, text: str) -> None:
        part = self._part if self._activity else self._done / self._total
        self._bar.update(self._task, completed=part, description=self._printable(text))


class NotebookProgress(Progress):
    """Shows a line in a notebook that updates itself, at most five times per second."""

    _updates_itself = True
    _line: Any = None

    def __exit__(self, *args: object) -> None:
        self._spoke = 0.0  # the last state is shown at once
        super().__exit__(*args)

    def _show_state(self) -> None:
        if time.monotonic() - self._spoke > 0.2:
            super()._show_state()

    def _show(self, text: str) -> None:
        from IPython.display import display

        self._spoke = time.monotonic()
        if self._line is None:
            self._line = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._line.update({"text/plain": text}, raw=True)


def make_progress(
    kind: bool | str, total_agent_steps: int, num_agents: int | None = None, *, verbose: bool = False
) -> Progress:
    """Returns the progress of a kind: "bar", "notebook" or "lines"; True: what suits the output; False: nothing.

    It shows the total of all agents' steps, or steps per agent if `num_agents` is given. Raises ValueError if `kind` is
    something else.
    """
    variants = {False: NullProgress, "bar": BarProgress, "notebook": NotebookProgress, "lines": Progress}
    chosen = _suitable_kind() if kind is True else kind
    if chosen not in variants:
        raise ValueError(f"progress is {kind!r}, but must be True, False, 'bar', 'notebook' or 'lines'")
    return variants[chosen](total_agent_steps, num_agents, verbose=verbose)


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
