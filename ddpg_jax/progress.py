"""What a run shows in the terminal while it goes, and at its end."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ddpg_jax.history import Episodes


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} steps/s")


class Silent:
    """Shows nothing."""

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

    def diverged(self, agent: int, env_steps: int) -> None:
        """Does nothing."""


class Bar(Silent):
    """A bar with the agents' steps, their rate, the time left, and how the agents last did.

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

    def diverged(self, agent: int, env_steps: int) -> None:
        """Says so, on a line of its own."""
        self._console.print(
            f"agent {agent} diverged at step {env_steps:,}: its numbers are no longer finite; it is left out",
            highlight=False,
        )

    def ended(self, episodes: Episodes) -> None:
        """With `verbose`, a line for each episode, as in the TensorFlow gist."""
        if self._verbose:
            for agent, episode, _, value, length, scale in zip(*episodes, strict=True):
                self._console.print(
                    f"Agent {agent:3d}, episode {episode:4d}, return: {value:9.3f}, "
                    f"steps: {length}, final noise scale: {scale:7.3f}",
                    highlight=False,
                )


def result_table(summary: dict[str, Any], folder: str) -> Table:
    """The figures of a finished run."""
    table = Table(
        title=f"{summary['num_agents']} agents on {summary['env_id']}, preset {summary['preset']}", show_header=False
    )
    table.add_column()
    table.add_column(overflow="fold")
    final, agents = summary["final_return"], summary["num_agents"]
    low, high = final["iqm_ci95"]
    if final["iqm"] is not None:
        table.add_row("final greedy return", f"mean {final['mean']:.1f}")
        table.add_row("", f"median {final['median']:.1f}")
        interval = f", 95% [{low:.1f}, {high:.1f}]" if low is not None and np.isfinite(low) else ""
        table.add_row("", f"IQM {final['iqm']:.1f}{interval}")
        table.add_row("", f"worst agent {final['worst']:.1f}, best {final['best']:.1f}")
    shortfall = summary.get("final_shortfall")
    if shortfall and shortfall["mean"] is not None:
        table.add_row("shortfall to the optimum", f"mean {shortfall['mean']:.1f}, worst {shortfall['worst']:.1f}")
        table.add_row("", f"IQM {shortfall['iqm']:.1f}")
        table.add_row("solved (shortfall <= 20)", f"{shortfall['num_solved']} of {agents} agents")
    for agent, step in zip(summary["diverged_agents"], summary["diverged_at_env_steps"], strict=True):
        table.add_row("diverged, left out", f"agent {agent} at step {step:,}")
    last = summary["train_return_last_40"]
    if last["mean"] is not None:
        table.add_row("last 40 training returns", f"mean {last['mean']:.1f}")
    table.add_row("greedy episodes", f"{summary['final_episodes']:,} an agent, from common start states")
    table.add_row("environment steps", f"{summary['env_steps_per_agent']:,} an agent")
    table.add_row("updates", f"{summary['updates_per_agent']:,} an agent")
    table.add_row("compilation", f"{summary['compile_seconds']:.1f} s")
    table.add_row("training", f"{summary['train_seconds']:.1f} s, {summary['updates_per_second']:,.0f} updates/s")
    share = summary["checkpoint_seconds"] / summary["wall_seconds"]
    table.add_row("checkpoints", f"{summary['checkpoint_seconds']:.1f} s, {100 * share:.1f}% of the run")
    table.add_row("in all", f"{summary['wall_seconds']:.1f} s on {summary['device']}")
    table.add_row("files", folder)
    return table
