"""`python -m ddpg_jax.cluster --seeds 4096 --per-task 512 --out FOLDER …`: divides a run among machines with Ray."""

import ctypes
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ddpg_jax import run
from ddpg_jax.command_line import refuse, to_words
from ddpg_jax.fields import COUNT, COUNT_OR_ZERO, format_value
from ddpg_jax.merge import merge_folders
from ddpg_jax.training.output import ignore_broken_pipe

PROGRAM = "python -m ddpg_jax.cluster"

MAY_CHANGE = {"out", "devices", "checkpoint_every", "log", "verbose"}
"""The options of a task that may differ when the command is given again."""


@dataclass(frozen=True, kw_only=True)
class Options(run.Options):
    """Trains ranges of seeds as tasks of a Ray cluster, each in a run folder of its own (FOLDER-tasks/A-B), and merges
    them into FOLDER at the end. All options of `python -m ddpg_jax.run` are options here.

    The machines must share a disk: a task that is lost is started again, and resumes from its last checkpoint. To
    continue after this command has ended early, give it again.
    """

    per_task: Annotated[int, COUNT] = 512
    """Seeds per task. A task has a GPU if the cluster has any, else a core, or as many as --devices."""
    address: str | None = None
    """Address of the cluster (default: RAY_ADDRESS; without it, Ray is started on this machine)."""
    retries: Annotated[int, COUNT_OR_ZERO] = 10
    """How often a task is started again."""


def _end_with_parent() -> None:
    """Lets this process be killed when its parent ends; otherwise it would keep its run folder locked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def train_seeds(folder: Path, words: list[str], directory: Path) -> None:
    """Runs a task in a process of its own, which ends with this one; if it was killed, raises ChildProcessError."""
    is_begun = (folder / "config.json").exists()
    if not is_begun:
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "ddpg_jax.run", *words, "--resume" if is_begun else "--out", str(folder)]
    with folder.with_suffix(".log").open("a") as log:
        status = subprocess.run(command, cwd=directory, stdout=log, stderr=log, preexec_fn=_end_with_parent).returncode
    if status not in (0, 1, 2):
        raise ChildProcessError(f"{folder} ended with status {status}")


def train_tasks(options: Options, folders: dict[Path, range], words: list[str]) -> None:
    """Runs the tasks of some seeds in their folders on a Ray cluster, and shows the progress of all in one bar."""
    import ray

    ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
    kind = "num_gpus" if ray.cluster_resources().get("GPU") else "num_cpus"
    task = ray.remote(train_seeds).options(
        **{"num_cpus": 0, kind: options.devices or 1}, max_retries=options.retries, retry_exceptions=[ChildProcessError]
    )
    pending = [
        task.remote(folder, [*words, *to_words({"seeds": each})], Path.cwd()) for folder, each in folders.items()
    ]
    config = options.swept[0].config
    num_rows = -(-config.total_steps // config.eval_every) * len(options.swept) * len(options.seeds)
    with Progress(BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn(), disable=options.quiet) as bars:
        bar = bars.add_task("", total=num_rows)
        while pending:
            _, pending = ray.wait(pending, timeout=1.0)
            done = f"{len(folders) - len(pending)} of {len(folders)} tasks"
            bars.update(bar, completed=sum(map(_num_rows, folders)), description=done)


def _num_rows(folder: Path) -> int:
    """Returns the rows of a run's metrics so far: one per agent per evaluation."""
    with suppress(OSError):
        return (folder / "metrics.csv").read_bytes().count(b"\n") - 1
    return 0


def require_same_run(folder: Path, words: list[str]) -> None:
    """Refuses, by ValueError, options of a task that would make another run of the one that its folder holds."""
    from ddpg_jax.training.run_folder import read_config

    command = read_config(folder)["command"]  # python -m ddpg_jax.run …
    before, now = run.read(command[3:]), run.read(words)
    for name in sorted({*before, *now} - MAY_CHANGE):
        if before.get(name) != now.get(name):
            value, earlier = (format_value(given[name]) if name in given else "not given" for given in (now, before))
            raise ValueError(f"{name} is {value}, but must be {earlier}, as in {folder}: to start anew, remove "
                             f"{folder.parent} or choose another --out")  # fmt: skip


def _run(options: Options, words: list[str]) -> int:
    """Trains and merges; returns the exit status."""
    if find_spec("ray") is None:
        raise ValueError("ray is not installed, but must be: pip install 'ddpg_jax[ray]'")
    from ddpg_jax.training.run_folder import fresh_folder

    num = options.per_task
    ranges = [options.seeds[i : i + num] for i in range(0, len(options.seeds), num)]
    if options.plan or options.list_environments:
        return run.main([*words, *to_words({"seeds": ranges[0]})])
    out = (options.out or fresh_folder(options)).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out is {out}, but must be a new or an empty folder")
    tasks = out.with_name(f"{out.name}-tasks")
    tasks.mkdir(parents=True, exist_ok=True)
    folders = {tasks / f"{seeds.start}-{seeds.stop}": seeds for seeds in ranges}
    for folder, seeds in folders.items():
        if (folder / "config.json").exists():
            require_same_run(folder, [*words, *to_words({"seeds": seeds})])
    train_tasks(options, folders, words)
    if unfinished := [folder for folder in folders if not (folder / "summary.json").exists()]:
        for folder in unfinished:
            log = folder.with_suffix(".log")
            last = log.read_text().splitlines()[-1:] if log.exists() else ["it was not started"]
            print(f"error: {folder} is not finished: {''.join(last)}", file=sys.stderr)
        return 1
    merged = merge_folders([*folders], out)
    return int(options.fail_on_divergence and bool(merged.summary.diverged))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        given = run.read(sys.argv[1:] if arguments is None else arguments, Options, PROGRAM)
        options = run.make_options(given, Options)
        own = {"per_task", "address", "retries", "seeds", "out", "quiet"}
        return _run(options, to_words({"devices": 1} | {name: each for name, each in given.items() if name not in own}))
    except ValueError as error:
        refuse(str(error), PROGRAM)
    except KeyboardInterrupt:
        print("stopped; to continue, give the same command again", file=sys.stderr)
        return 130


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
