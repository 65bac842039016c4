"""Runs the commands for the tests, most of them in a process of their own."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parent.parent

SMALL = (
    "--hidden-sizes", "8", "--batch-size", "8", "--learning-starts", "20", "--replay-capacity", "100",
    "--max-episode-steps", "25", "--eval-every", "60", "--eval-episodes", "16", "--final-episodes", "16",
    "--total-steps", "200",
)  # fmt: skip
"""Flags for a run that compiles in a second and trains in less; its length is not a multiple of `--eval-every`."""


class Outcome(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str


def start(
    *words: object, folder: Path, largest_file: int | None = None, module: str = "run", **variables: str
) -> subprocess.Popen:
    """Starts a command in a folder, with more environment variables; files have at most `largest_file` bytes."""
    arguments = [*map(str, words)]
    if module == "run" and "--resume" not in arguments:
        arguments = [*SMALL, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120", **variables}
    under: tuple[str, ...] = ()
    if largest_file is not None:
        under = ("sh", "-c", 'ulimit -f "$0"; exec "$@"', str(largest_file // 512))
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # so that a kill leaves no damaged entry in the cache
    return subprocess.Popen(
        [*under, sys.executable, "-m", f"ddpg_jax.{module}", *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def execute(*words: object, **options) -> Outcome:
    """Runs a command to its end (see `start`)."""
    process = start(*words, **options)
    out, err = process.communicate(timeout=240)
    return Outcome(process.returncode, out, err)


def refused(main: Callable, *words: object) -> str:
    """Runs a command in this process, with the one device that it has; returns the line of its refusal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--devices", "1"])
    assert (stop.value.code, out.getvalue()) == (2, "")
    (line,) = err.getvalue().splitlines()
    return line


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, the oldest first."""
    return sorted(folder.glob("checkpoints/[0-9]*.safetensors"))
