"""Runs the console blocks of docs/reliability.md again, in this process, and compares the output with the page."""

import contextlib
import importlib.util
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys

import command
import pytest

from ddpg_jax import evaluate

SPEC = importlib.util.spec_from_file_location("run_console", command.REPOSITORY / "docs/run_console.py")
run_console = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_console)

pytestmark = pytest.mark.slow

PAGE = command.REPOSITORY / "docs/reliability.md"
RUN, EVALUATE = ["python", "-m", "ddpg_jax.run"], ["python", "-m", "ddpg_jax.evaluate"]
SHOWN = re.compile(r"error: |stopped by |agent \d+ diverged|resuming |.* is finished at ")
"""The lines that are compared; times and device names differ from machine to machine."""


def perform(line, folder):
    """Runs a shown command; returns its status and the lines that it prints."""
    words = shlex.split(line)
    if words[:3] == RUN:
        outcome = command.main(*words[3:], config=())
    elif words[:3] == EVALUATE:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            status = evaluate.main(words[3:])
        outcome = command.Outcome(status, out.getvalue(), err.getvalue())
    else:
        here = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        process = subprocess.run(["bash", "-c", line], cwd=folder, env=here, capture_output=True, text=True)
        outcome = command.Outcome(process.returncode, process.stdout, process.stderr)
    return outcome.status, (outcome.out + outcome.err).splitlines()


def compared(line, printed):
    """Returns the printed lines that must be the same; a library's own words may differ."""
    kept = [text for text in printed if SHOWN.match(text) or not line.startswith("python")]
    library = r"(?<= is damaged: )[^;]*|(?<=Unable to initialize backend ).*(?= \(see )"
    return [re.sub(library, "…", text) for text in kept]


@pytest.fixture(scope="module")
def performed(tmp_path_factory):
    """The commands of the page in order, each with the output on the page and the new output."""
    folder = tmp_path_factory.mktemp("page")
    blocks = run_console.BLOCK.findall(PAGE.read_text())
    shown = [shown for block in blocks for shown in run_console.commands(block)]
    with contextlib.chdir(folder):
        return [(*case, *perform(case[0], folder)) for case in shown]


def test_page_has_cases(performed):
    assert len(performed) > 50


def test_commands_end_as_the_page_says(performed):
    assert [(line, now) for line, _, status, now, _ in performed if now != status] == []


def test_commands_say_what_the_page_says(performed):
    for line, shown, _, _, printed in performed:
        assert compared(line, printed) == compared(line, shown), line


def test_refused_commands_leave_nothing_behind(performed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = [line for line, _, status, _, _ in performed if status == 2 and "--resume" not in line]
    for line in (line for line in refused if line.startswith(shlex.join(RUN)) and "--out" not in line):
        assert perform(line, tmp_path)[0] == 2
    assert list(tmp_path.iterdir()) == []
