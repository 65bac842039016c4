"""Output that nobody reads, that has no room, or that cannot be encoded does not end a program."""

import os
import subprocess
import sys
import time

import pytest

from ddpg_jax.training.output import ignore_broken_pipe

GUARD = "from ddpg_jax.training.output import ignore_broken_pipe; ignore_broken_pipe()"
PRINT = f"""
import os, sys
{GUARD}
for number in range(20_000):
    print("line", number)
    print("error", number, file=sys.stderr)
os.write(int(sys.argv[1]), b"reached the end")
"""


def shell(redirection, *, script=PRINT, **variables):
    """Runs a script in a shell; returns its status and what it wrote to a descriptor of its own."""
    reader, writer = os.pipe()
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {writer} {redirection}; exit ${{PIPESTATUS[0]}}', sys.executable, script],
        pass_fds=(writer,), env={**os.environ, **variables}, capture_output=True, timeout=60,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as stream:
        return done, stream.read()


@pytest.mark.parametrize("redirection", ["2>&1 | head -1", ">/dev/full 2>&1", "2>/dev/full", ">&- 2>&-", ">&-"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_program_continues_without_a_reader(redirection, unbuffered):
    done, end = shell(redirection, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, end) == (0, "reached the end")
    assert b"Error" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "gr??er"), ("latin-1", "gr\xf6\xdfer"), ("utf-8", "größer")])
def test_text_keeps_its_order_and_characters_that_cannot_be_encoded_are_replaced(encoding, shown):
    done, _ = shell("", script=f"print('first'); {GUARD}; print('größer')", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout.decode(encoding)) == (0, f"first\n{shown}\n")


def test_pipe_that_another_program_has_made_non_blocking_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([sys.executable, "-c", PRINT, "2"], stdout=writer, stderr=subprocess.DEVNULL) as process:
        os.close(writer)
        time.sleep(1)  # the pipe fills up
        with os.fdopen(reader) as stream:
            assert stream.read().splitlines() == [f"line {number}" for number in range(20_000)]
    assert process.returncode == 0


def test_stream_without_a_descriptor_is_left_alone(capsys):
    before = sys.stdout, sys.stderr
    ignore_broken_pipe()
    assert (sys.stdout, sys.stderr) == before
