"""Output that nobody reads, that has no room, or that cannot be encoded does not end a program."""

import os
import subprocess
import sys

import pytest

from ddpg_jax.training.output import ignore_broken_pipe, in_ascii

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


@pytest.mark.parametrize(
    "redirection",
    ["2>&1 | head -1", "2>&1 | true", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", ">&- 2>&-", "2>&-"],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_program_continues_without_a_reader(redirection, unbuffered):
    done, end = shell(redirection, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, end) == (0, "reached the end")
    assert b"Error" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_without_this_the_program_ends():
    """The test above tests something."""
    done, end = shell("2>&1 | true", script=PRINT.replace(GUARD, ""))
    assert (done.returncode, end) != (0, "reached the end")


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "a - b ... ?"), ("latin-1", "a - b ... ?"), ("utf-8", "a − b … ⠋")]
)
def test_characters_that_the_encoding_lacks_are_replaced(encoding, shown):
    script = f"{GUARD}; print('a − b … ⠋')"
    done, _ = shell("", script=script, PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert done.stdout.strip() == shown.encode()


def test_text_that_is_in_the_buffer_stays_in_front():
    script = f"print('first'); {GUARD}; print('then')"

    done, _ = shell("", script=script)
    assert done.stdout == b"first\nthen\n"


def test_terminal_that_another_program_has_made_non_blocking_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen([sys.executable, "-c", PRINT, "2"], stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert stream.read().splitlines() == [f"line {number}" for number in range(20_000)]
    assert process.wait() == 0


def test_stream_without_a_descriptor_is_left_alone(capsys):
    before = sys.stdout, sys.stderr
    ignore_broken_pipe()
    assert (sys.stdout, sys.stderr) == before


def test_similar_characters_stand_for_others():
    assert in_ascii("−1.5 × 3 – 4 … ü") == "-1.5 x 3 - 4 ... ?"
