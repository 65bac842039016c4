"""What a run shows while it trains: in a terminal, in a notebook, in a log file; and its stopwatch."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import time

import nbclient
import nbformat
import numpy as np
import pytest

from ddpg_jax.results.history import Episodes
from ddpg_jax.training.progress import make_progress
from ddpg_jax.training.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves: `clock.seconds += 1`."""

    class Clock:
        seconds = 1000.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.seconds)
    return Clock


def test_log_file_has_a_line_at_each_tenth_after_its_evaluation(capsys, clock):
    """Four agents of 1,000 steps each, that begin to learn after 100."""
    with make_progress("lines", 4000, 4) as progress:
        progress.compiling("compiling")
        for step in range(1, 21):
            clock.seconds += 2
            progress.advanced(200, updates=400 if step > 2 else 0)
            if step % 4 == 0:
                progress.evaluated(50 * step, np.array([-1200.0 + step, -146.2, -130.0]), -129.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[:3] == [
        "compiling",
        "100 of 1,000 steps per agent (10%)",
        "200 of 1,000 steps per agent (20%), 133 updates/s, 48 s left; return: median -146.2 (optimum -129.5), "
        "worst -1,196.0",
    ]
    assert lines[-1].startswith("1,000 of 1,000 steps per agent (100%), 200 updates/s; return: median -146.2")


@pytest.mark.parametrize("last", [[np.nan, 3.0, 1.0, 2.0], [np.nan]])
def test_returns_that_are_not_numbers_and_an_unknown_optimum_are_left_out(capsys, last):
    with make_progress("lines", 10) as progress:
        progress.evaluated(5, np.array([1.0, 2.0, 3.0]), None)
        progress.advanced(5)
        progress.evaluated(5, np.array(last), None)
    assert capsys.readouterr().out == "5 of 10 steps (50%); return: median 2.0, worst 1.0\n"


def test_rate_is_that_of_the_last_half_minute_without_compiling(capsys, clock):
    with make_progress("lines", 100_000) as progress:
        for steps in [5000] * 10 + [500] * 40:
            clock.seconds += 1
            progress.advanced(steps)
        progress.compiling("compiling program 2 of 2")
        clock.seconds += 20
        for _ in range(3):
            progress.advanced(10_000)
            clock.seconds += 10
    lines = capsys.readouterr().out.splitlines()
    assert "50,000 of 100,000 steps (50%), 5,000 steps/s, 10 s left" in lines
    assert "70,000 of 100,000 steps (70%), 500 steps/s, 60 s left" in lines
    assert lines[-2] == "90,000 of 100,000 steps (90%), 1,000 steps/s, 10 s left"


def test_steps_of_an_earlier_process_do_not_count_for_the_rate(capsys, clock):
    with make_progress("lines", 10_000) as progress:
        progress.advanced(5000, resumed=True)
        for _ in range(3):
            clock.seconds += 25
            progress.advanced(500)
    assert capsys.readouterr().out.splitlines() == ["6,000 of 10,000 steps (60%), 20 steps/s, 3 min left"]


def test_log_file_has_a_line_after_30_seconds_of_compiling_training_and_evaluating(capsys, clock):
    """A thread prints it, because the main one is busy; here its clock jumps."""

    def line():
        clock.seconds += 31
        for _ in range(500):
            if text := capsys.readouterr().out:
                return text
            time.sleep(0.01)
        return None

    with make_progress("lines", 1000, 10) as progress:
        progress.compiling("compiling")
        capsys.readouterr()
        assert line() == "compiling, 31 s\n"
        progress.advanced(10, updates=0)
        assert line() == "1 of 100 steps per agent (1%)\n"
        count = progress.evaluating(1024)
        count(128)
        count(128)
        assert line() == "final evaluation: 256 of 1,024 episodes per agent, 31 s\n"
    assert capsys.readouterr().out == ""


EPISODES = Episodes(*map(np.array, [[3, 12], [7, 0], [1600, 200], [-150.25, -1200.0], [200, 200], [0.4, 0.0135]]))


@pytest.mark.parametrize("verbose", [False, True])
def test_episodes_are_shown_if_asked_for_and_agents_that_diverge_always(capsys, verbose):
    progress = make_progress("lines", 100, verbose=verbose)
    progress.episodes_ended(EPISODES)
    progress.diverged(3, 1020, None)
    progress.diverged(5, 7, "the reward was nan")
    episodes = [
        "Agent   3, episode    7, return:  -150.250, steps: 200, final noise scale:   0.400",
        "Agent  12, episode    0, return: -1200.000, steps: 200, final noise scale:   0.013",
    ]
    assert capsys.readouterr().out.splitlines() == episodes * verbose + [
        "agent 3 diverged at step 1,020: its values are no longer finite; it is left out of the statistics",
        "agent 5 diverged at step 7: the reward was nan; it is left out of the statistics",
    ]


def use(progress):
    """Calls every method."""
    with progress:
        progress.compiling("compiling [a]")
        time.sleep(0.3)  # a bar is drawn ten times per second
        progress.advanced(100, resumed=True)
        progress.advanced(100)
        time.sleep(0.3)
        progress.advanced(100)
        progress.evaluated(100, np.array([-1.0, np.nan]), -0.5)
        progress.episodes_ended(EPISODES)
        progress.message("größer [a]")
        progress.advanced(100)
        progress.evaluating(4)(1)
        time.sleep(0.3)


def test_nothing_is_shown_on_request(capsys):
    use(make_progress(False, 400, verbose=True))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["bars", None, 2])
def test_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match=f"progress is {kind!r}, but must be True, False, 'bar', 'noteb"):
        make_progress(kind, 100)


SCRIPT = f"""
import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_progress import use
from ddpg_jax.training.progress import make_progress
use(make_progress(True, 400))
"""
LAST = r"400 of 400 steps \(100%\), [\d,]+ steps/s; return: median -1\.0 \(optimum -0\.5\), worst -1\.0"


@pytest.mark.parametrize(
    ("encoding", "spinner", "message"), [("utf-8", "⠋", "größer [a]"), ("ascii", "-", "gr??er [a]")]
)
def test_terminal_has_a_bar_and_messages_above_it(encoding, spinner, message):
    ours, theirs = pty.openpty()
    variables = {"PYTHONIOENCODING": encoding, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], env=os.environ | variables, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # at its end
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(encoding))
    assert spinner in text
    assert "compiling [a]" in text
    quarter = "━━━━━━╺━{17} " if encoding == "utf-8" else ""
    assert re.search(f"{quarter}final evaluation: 1 of 4 episodes", text)
    assert f"{message}\r\n" in text
    assert re.search(LAST, text)


def test_pipe_gets_lines_whatever_its_encoding_and_though_colours_are_forced():
    variables = {"FORCE_COLOR": "1", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=os.environ | variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[1] == "200 of 400 steps (50%)"


def test_notebook_has_a_line_that_updates_itself():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SCRIPT)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    line, *texts = notebook.cells[0].outputs
    assert line.output_type == "display_data"
    assert re.fullmatch(LAST, line.data["text/plain"])
    assert "".join(text.text for text in texts) == "größer [a]\n"


def test_stopwatch_counts_what_earlier_processes_counted():
    earlier, later = Stopwatch(started=time.perf_counter() - 100), Stopwatch()
    for watch in (earlier, later):
        with contextlib.suppress(KeyError), watch.time("training"):
            time.sleep(0.05)
            raise KeyError
    later.restore(earlier.counts())
    assert 0.1 < later.training < 1
    assert (later.compiling, later.evaluating, later.saving) == (0, 0, 0)
    assert 100 < earlier.wall < later.wall < 110
