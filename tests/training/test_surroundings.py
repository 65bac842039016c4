"""Other people's environments: what a user has set for other programs ends no run and changes no result."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from command import REPOSITORY, SMALL

from ddpg_jax.domains import from_words
from ddpg_jax.runs.options import OPTION_ANNOTATIONS


def run(*arguments, folder, command="run", **variables):
    """Runs a command in a process of its own, with further environment variables."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120", **variables}
    words = [*map(str, arguments)]
    words = words if command != "run" or "--resume" in words else [*SMALL, *words]
    return subprocess.run(
        [sys.executable, "-m", f"ddpg_jax.{command}", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.mark.slow
def test_a_backend_that_matplotlib_does_not_know_costs_nothing(tmp_path):
    """Kernels of notebooks export a backend that another environment lacks."""
    style = tmp_path / "matplotlibrc"
    style.write_text("savefig.dpi: 1\naxes.titlesize: 1\n")
    done = run("--seeds", 2, "--quiet", "--out", "run", folder=tmp_path, MPLBACKEND="nonsense", MATPLOTLIBRC=str(style))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run/learning_curve.png").stat().st_size > 10_000  # not in the style of the rc file
    assert json.loads((tmp_path / "run/summary.json").read_text())["num_agents"] == 2
    done = run("run", "--figure", "c.png", folder=tmp_path, command="compare", MPLBACKEND="nonsense")
    assert (done.returncode, done.stderr) == (0, "")


def test_paths_are_shown_as_they_are(tmp_path):
    """What looks like markup is none."""
    name = "a[/b]:smile:[lr]"
    done = run("--seeds", 1, "--out", f"runs/{name}", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f" runs/{name} " in done.stdout
    done = run("--resume", f"runs/{name}", folder=tmp_path)
    assert done.stdout == f"runs/{name} is finished at 200 steps: there is nothing left to do\n"


def rows(folder):
    return (folder / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run in an environment without settings."""
    folder = tmp_path_factory.mktemp("plain")
    done = run("--seeds", 3, "--quiet", "--out", "run", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "run"


@pytest.mark.slow
def test_settings_and_a_meagre_surrounding_change_no_bit_of_a_run(plain, tmp_path):
    """Many things at once, each of which has ended a run or changed its bits.

    JAX's settings, 64 open files, Python without assertions and with warnings as errors, a home that cannot be written.
    """
    settings = {
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_DISABLE_JIT": "1",
    }
    words = " ".join([sys.executable, "-O", "-m", "ddpg_jax.run", *SMALL, "--seeds", "3", "--quiet", "--out", "run"])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error", "HOME": "/dev/null"}
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(name, None)
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 64; exec {words}"],
        cwd=tmp_path, env=environment | settings, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Matplotlib alone speaks: it has no folder of its own.
    assert [line for line in done.stderr.splitlines() if "atplotlib" not in line and "MPLCONFIGDIR" not in line] == []
    assert rows(tmp_path / "run") == rows(plain)


@pytest.mark.parametrize("name", ["cuda", "nonsense"])
def test_platform_that_is_not_there_is_refused_in_one_line(tmp_path, name):
    done = run("--seeds", 1, "--out", "run", folder=tmp_path, JAX_PLATFORMS=name)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: JAX_PLATFORMS is {name}, but must name a platform that is here")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["out", "resume"])
def test_tilde_is_the_users_home(monkeypatch, option):
    monkeypatch.setenv("HOME", "/somewhere")
    assert from_words(option, ["~/x"], OPTION_ANNOTATIONS[option]) == Path("/somewhere/x")
    assert from_words(option, ["~no-such-user/x"], OPTION_ANNOTATIONS[option]) == Path("~no-such-user/x")


@pytest.mark.slow
def test_terminal_that_cannot_show_everything_is_shown_ascii(tmp_path):
    """A terminal of an encoding other than UTF-8 gets no traceback from the spinner, the bar or the tables."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "latin-1", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpg_jax.run", *SMALL, "--seeds", "1", "--out", "run"],
        cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # at its end
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in shown
    assert (tmp_path / "run/summary.json").exists()


