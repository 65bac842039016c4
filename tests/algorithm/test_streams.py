"""Tests a run whose output is closed: a pipe to `head`, a closed terminal, a full disk behind `> log`."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from command import checkpoints, start, wait_for
from ddpg_jax.processes.output import Enduring

LONG = ("--seeds", 2, "--total-steps", 100_000_000, "--eval-every", 100_000_000, "--checkpoint-every", 0.2)


@contextmanager
def reader_gone() -> Iterator[int]:
    """Returns the writing end of a pipe whose reading end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full_disk() -> Iterator[int]:
    """Opens a file on a device without space."""
    with open("/dev/full", "wb") as file:
        yield file.fileno()


@pytest.mark.parametrize("output", [reader_gone, pytest.param(full_disk, marks=pytest.mark.slow)])
def test_run_goes_on_without_a_reader(tmp_path, output):
    with output() as nobody:
        assert start("--out", "run", "--seeds", 2, folder=tmp_path, output=nobody).wait(timeout=240) == 0
    assert (tmp_path / "run/summary.json").exists()


def test_what_is_written_arrives(capfd):
    stream = Enduring(sys.stdout)
    assert stream.write("a\n") == 2
    stream.writelines(["b\n", "c\n"])
    stream.flush()
    assert capfd.readouterr().out == "a\nb\nc\n"
    assert stream.encoding == sys.stdout.encoding


@pytest.mark.parametrize(
    "program",
    ["run", "compare", *(pytest.param(name, marks=pytest.mark.slow) for name in ("evaluate", "export", "render"))],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_command_does_not_complain_of_a_reader_that_is_gone(program, stream):
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    words = ["--help"] if stream == "stdout" else ["--no-such-flag"]
    with reader_gone() as nobody:
        streams = {stream: nobody, other: subprocess.PIPE}
        done = subprocess.run([sys.executable, "-m", f"ddpg_jax.{program}", *words], **streams, text=True)
    assert done.returncode == (0 if stream == "stdout" else 2)
    assert getattr(done, other) == ""


def test_command_runs_where_its_streams_are_closed(tmp_path):
    words = ["-c", '"$@" >&- 2>&-', "sh"]
    process = start("--out", "run", "--seeds", 2, folder=tmp_path, under=("sh", *words), output=subprocess.DEVNULL)
    assert process.wait(timeout=240) == 0
    assert (tmp_path / "run/summary.json").exists()


@pytest.mark.slow
def test_run_whose_terminal_is_closed_saves_what_it_has(tmp_path):
    terminal, end = pty.openpty()
    process = start("--out", "run", *LONG, folder=tmp_path, output=end)
    os.close(end)
    wait_for(lambda: checkpoints(tmp_path / "run"))
    newest = checkpoints(tmp_path / "run")[-1]
    os.close(terminal)  # everything that is written from here on fails
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert checkpoints(tmp_path / "run")[-1] > newest


@pytest.mark.slow
def test_nohup_holds(tmp_path):
    process = start("--out", "run", *LONG, folder=tmp_path, under=("nohup",), output=subprocess.DEVNULL)
    wait_for(lambda: checkpoints(tmp_path / "run"))
    process.send_signal(signal.SIGHUP)
    newest = checkpoints(tmp_path / "run")[-1]
    wait_for(lambda: checkpoints(tmp_path / "run")[-1] > newest + 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
