"""Runs the options of `python -m ddpg_jax.run`: signals, exit status, and the lines with which a run ends early."""

import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpg_jax.training.signals import StopSignals

if TYPE_CHECKING:
    from ddpg_jax.options import TrainOptions
    from ddpg_jax.training.plan import Plan
    from ddpg_jax.training.result import Result
    from ddpg_jax.training.run_folder import RunFolder


def run_command(
    options: "TrainOptions",
    words: Sequence[str],
    *,
    started: float,
    plan_only: bool = False,
    quiet: bool = False,
    fail_on_divergence: bool = False,
) -> int:
    """Trains what the options say; returns the exit status.

    Args:
        options: of the run.
        words: the command line, for `config.json`.
        started: when the command was started, of `time.perf_counter`.
        plan_only: print what the run needs, and train nothing.
        quiet: print only errors.
        fail_on_divergence: return 1 if any agent has diverged, not only if all have.

    Raises:
        ValueError: if the run is not possible; nothing has been left behind.
    """
    with StopSignals(ends_process=True) as stop:
        # JAX is imported from here on, so that a mistake in the options is told at once.
        from ddpg_jax.training import devices
        from ddpg_jax.training.plan import make_plan
        from ddpg_jax.training.run_folder import fresh_folder

        devices.use_all_cores(options.devices)
        devices.use_compilation_cache()
        devices.require_platform()
        # A cache on a full or read-only disk, or an entry that a kill has cut short, costs time, no more.
        warnings.filterwarnings("ignore", message="Error .* persistent compilation cache entry")
        with devices.pinned_jax_config():
            options = replace(options, out=options.out or fresh_folder(options))
            plan = make_plan(options)
            if plan_only:
                print(*plan.lines(), *plan.memory_lines(), sep="\n")
                return 0
            result = _train(plan, words, stop, started, quiet)
            return result if isinstance(result, int) else _status(result, fail_on_divergence)


def _train(plan: "Plan", words: Sequence[str], stop: StopSignals, started: float, quiet: bool) -> "Result | int":
    """Returns the result of the run, or the exit status if it has ended early."""
    import jax

    from ddpg_jax.training.progress import make_progress
    from ddpg_jax.training.run import EnvironmentFailedError, train_agents
    from ddpg_jax.training.stopwatch import Stopwatch

    total = plan.num_agents * plan.config.total_steps
    progress = make_progress(not quiet, total, verbose=plan.options.verbose)
    for line in (*plan.lines(), *_notes(plan)):
        progress.message(line)
    folders: list[RunFolder] = []

    def advice() -> str:
        """Returns the last words of a process that is ended at once."""
        if folders and not (folders[0].path / "config.json").exists():
            folders[0].leave()
        return _how_to_resume(folders[0].path) if folders and folders[0].path.exists() else "nothing has been written"

    stop.advice = advice
    command = [Path(sys.executable).name, "-m", "ddpg_jax.run", *words]
    watch = Stopwatch(started=started)
    try:
        result = train_agents(plan, stop=stop, progress=progress, command=command, opened=folders.append, watch=watch)
    except (OSError, MemoryError, jax.errors.JaxRuntimeError, EnvironmentFailedError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "there is not enough memory"
        print(f"error: {reason}; {advice()}", file=sys.stderr)
        return 1
    if not result.summary.complete:
        number = stop.number or signal.SIGTERM
        step = f"{result.history.env_steps:,}"
        print(f"stopped by {signal.Signals(number).name} at step {step}; {advice()}", file=sys.stderr)
        return 128 + number
    if not quiet:
        _show(result)
    return result


def _notes(plan: "Plan") -> list[str]:
    """Returns what a user should know before a run."""
    from ddpg_jax.presets import tuning_note
    from ddpg_jax.training.devices import unused_gpu

    notes = (unused_gpu(plan.setups[0].placement.platform), tuning_note(plan.options.preset, plan.config))
    return [f"note: {note}" for note in notes if note]


def _show(result: "Result") -> None:
    """Prints the result as tables."""
    from rich.console import Console

    from ddpg_jax.results import console

    screen = Console(soft_wrap=True, highlight=False, markup=False, emoji=False, force_terminal=sys.stdout.isatty())
    if result.summary.configs:
        screen.print(console.ranking_table(result.summary), console.conclusion(result.summary), sep="\n")
    screen.print(console.result_table(result.summary, str(result.folder)))


def _how_to_resume(folder: Path) -> str:
    return f"resume with: {shlex.join([sys.orig_argv[0], '-m', 'ddpg_jax.run', '--resume', str(folder)])}"


def _status(result: "Result", fail_on_divergence: bool) -> int:
    """Returns the exit status of a finished run; where diverged agents make it 1, prints a line that says so."""
    diverged, num_agents = result.summary.diverged, result.summary.num_agents
    if not diverged or (len(diverged) < num_agents and not fail_on_divergence):
        return 0
    named = ", ".join(f"{agent} at step {step:,}" for agent, step in diverged.items())
    print(f"error: {len(diverged)} of {num_agents} agents diverged: {named}", file=sys.stderr)
    return 1
