"""Runs the command for the tests: in this process, where runs share compiled programs, or in a process of its own."""

import contextlib
import functools
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from ddpg_jax import run
from ddpg_jax.population import programs
from ddpg_jax.processes import devices
from ddpg_jax.processes.signals import Interruption
from ddpg_jax.results.history import History
from ddpg_jax.runs import finish

REPOSITORY = Path(__file__).parent.parent

SMALL = (
    "--hidden-sizes", "8", "--batch-size", "8", "--learning-starts", "20", "--replay-capacity", "100",
    "--max-episode-steps", "25", "--eval-every", "60", "--eval-episodes", "64", "--total-steps", "200",
)  # fmt: skip
"""Flags for a run that compiles in a second and trains in less; its length is not a multiple of `--eval-every`."""


class Outcome(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str


def main(*arguments: object, config: tuple[str, ...] = SMALL) -> Outcome:
    """Runs the command in this process, on the devices that JAX has here, without figures."""
    words = [*map(str, arguments)] if "--resume" in arguments else [*config, *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(finish, "compile_programs", _compiled),
        mock.patch.object(finish, "plots"),
        mock.patch.object(finish, "sweep_plots"),
        mock.patch.object(devices, "prepare"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            status = run.main(words)
        except SystemExit as stop:
            status = stop.code
    return Outcome(status, out.getvalue(), err.getvalue())


@functools.cache
def _compiled(setup, placement, **sizes):
    return programs.compile_programs(setup, placement, **sizes)


def start(
    *arguments: object,
    folder: Path,
    config: tuple[str, ...] = SMALL,
    largest_file: int | None = None,
    under: tuple[str, ...] = (),
    output: int = subprocess.PIPE,
) -> subprocess.Popen:
    """Starts the command in a process of its own, in the given folder.

    With `largest_file`, in bytes, writing more into a file fails as on a full disk; `under` are words before the
    interpreter; both streams go to `output`.
    """
    words = [*map(str, arguments)] if "--resume" in arguments else [*config, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}
    if largest_file is not None:
        under = ("sh", "-c", 'ulimit -f "$0"; exec "$@"', str(largest_file // 512))
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # so that a kill leaves no damaged entry in the cache
    return subprocess.Popen(
        [*under, sys.executable, "-m", "ddpg_jax.run", *words],
        cwd=folder, env=environment, stdout=output, stderr=output, text=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def checkpoints(folder: Path) -> list[int]:
    """Returns the numbers of the checkpoints of a run."""
    return sorted(int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdecimal())


def execute(*arguments: object, **options) -> Outcome:
    """Runs the command in a process of its own, to its end."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=240)
    return Outcome(process.returncode, out, err)


def results(folder: Path) -> dict[str, bytes]:
    """Returns the files of a run that must be the same after a resumption: tables and policies."""
    files = sorted(path.relative_to(folder) for path in (folder / "policy").rglob("*") if path.is_file())
    names = ["metrics.csv", "episodes.csv", *map(str, files)]
    return {name: (folder / name).read_bytes() for name in names}


def copy(folder: Path, to: Path) -> Path:
    """Returns a copy of a run folder that a test may change."""
    shutil.copytree(folder, to)
    return to


def stopped_after(num_chunks: int, *arguments: object, signal_number: int = 15):
    """Runs the command, and sends it a signal in the given chunk."""
    chunks = 0

    def stop(self, log):
        nonlocal chunks
        chunks += 1
        if chunks == num_chunks:
            self.interruption.number = signal_number
        return add_chunk(self, log)

    add_chunk = History.add_chunk

    class Listening(Interruption):
        def __enter__(self):
            History.interruption = self
            return self

    with mock.patch("ddpg_jax.run.Interruption", Listening), mock.patch.object(History, "add_chunk", stop):
        return main(*arguments)
