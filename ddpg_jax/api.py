"""`train`, `load` and `compare`: what a notebook, a script and the commands all use."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import Hyperparameters
from ddpg_jax.options import TrainOptions
from ddpg_jax.results.comparison import Comparison, compare_runs, distinct_names, runs_of
from ddpg_jax.results.history import History
from ddpg_jax.sweep import Configs, as_swept, preset_of
from ddpg_jax.training import result
from ddpg_jax.training.devices import pinned_jax_config, use_all_cores_if_not_started, use_compilation_cache
from ddpg_jax.training.plan import make_plan
from ddpg_jax.training.progress import make_progress
from ddpg_jax.training.result import Result
from ddpg_jax.training.run import train_agents
from ddpg_jax.training.signals import StopSignals


@pinned_jax_config()
def train(
    config: Configs = "pendulum",
    *,
    seeds: int | range = 32,
    seed: int = 0,
    setup: Setup | None = None,
    hyperparameters: Hyperparameters | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    callback: Callable[[History], Any] | None = None,
    devices: int | None = None,
    group_size: int | None = None,
    checkpoint_every: float | None = None,
    log: Sequence[Literal["tensorboard", "wandb"]] = (),
    verbose: bool = False,
) -> Result:
    """Trains many agents in one compiled program, and evaluates them as they learn and afterwards.

    `python -m ddpg_jax.run` does the same: equal arguments on equal hardware give equal bits.

    Args:
        config: a `Config`, the name of a preset, or a list of them, which are trained together with the same seeds.
        seeds: one agent per seed and configuration; 32 means seeds 0 to 31, range(512, 1024) seeds 512 to 1023.
        seed: root seed. The key of an agent is the root key with the number of its seed folded in, so agents with the
            same seed share their random numbers in all configurations and calls, and can be compared in pairs.
        setup: a custom `Setup` to compile (`make_setup`, `with_parts`); default: the one that each configuration
            describes.
        hyperparameters: numbers that all agents share, or arrays [N]; default: those of the configurations.
        out: a new or empty folder for tables, figures, policies and checkpoints; default: everything stays in memory.
        resume: continue the run in `out`, which was stopped or is to train for more steps.
        progress: show progress with an estimate of the time left, in a terminal, in a notebook or in a log file.
        callback: called after each evaluation with the `History` of the agents that share programs (all of them, but
            in a sweep over sizes); if it returns True, these agents stop training.
        devices: number of devices; default: all.
        group_size: agents that advance together on a device; default: 1 on a CPU.
        checkpoint_every: seconds between checkpoints; default: 60, or longer where they would cost more than 5%.
        log: "tensorboard", "wandb" or both.
        verbose: print a line for every training episode.

    Returns:
        The result. Interrupted by Ctrl-C, it holds what has been measured so far, and `summary.complete` is False.

    Raises:
        ValueError: names an argument, its value and the rule that it breaks.
        OSError: if something cannot be written.
        EnvironmentFailedError: if an environment on the host raised an error; with `out`, the agents were saved first.
    """
    swept = as_swept(config)
    options = TrainOptions(
        swept=swept,
        preset=preset_of(swept[0].config),
        seeds=cast(range, seeds),  # a number becomes a range when the options are checked
        seed=seed,
        out=None if out is None else Path(out),
        resume=resume,
        devices=devices,
        group_size=group_size,
        checkpoint_every=checkpoint_every,
        log=tuple(log),
        verbose=verbose,
    )
    note = use_all_cores_if_not_started(len(swept) * len(options.seeds))
    use_compilation_cache()
    plan = make_plan(options, setup, hyperparameters)
    shown = make_progress(progress, plan.num_agents * plan.config.total_steps, plan.num_agents, verbose=verbose)
    if note:
        shown.message(f"note: {note}")
    with StopSignals(ends_process=False) as stop:
        trained = train_agents(plan, stop=stop, progress=shown, callback=callback)
    if stop.number not in (None, signal.SIGINT):
        signal.raise_signal(stop.number)  # SIGTERM, for example, ends the program as usual, once the agents are saved
    return trained


def load(folder: str | Path) -> Result:
    """Returns the result in a run folder that the command, `train(out=...)` or `Result.save` has written.

    Raises ValueError if the folder does not hold a finished run, or a file in it is damaged.
    """
    return result.load(Path(folder))


def compare(*results: Result | str | Path, threshold: float | None = None) -> Comparison:
    """Compares results and run folders with the first of them; the configurations of a sweep count one by one.

    Args:
        results: results, or folders of finished runs.
        threshold: evaluation return that counts as reached; default: the return at which the task is solved, if known.

    Returns:
        A table with `plot()`: interquartile means, probability of improvement, and differences in pairs of equal seeds.

    Raises:
        ValueError: if they were not trained on the same task, or a folder does not hold a finished run.
    """
    if not results:
        raise ValueError("runs is empty, but must name at least one result or run folder")
    loaded = [each if isinstance(each, Result) else load(each) for each in results]
    names = distinct_names([each.name for each in loaded])
    runs = [run for name, each in zip(names, loaded, strict=True)
            for run in runs_of(name, each.summary, each.history, each.configs)]  # fmt: skip
    return compare_runs(runs, threshold)
