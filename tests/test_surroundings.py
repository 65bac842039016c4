"""Other people's environments: what a user has set for other programs ends no run and changes no result."""

import json
import os
import subprocess
import sys

import pytest
from command import REPOSITORY, SMALL


def run(*arguments, folder, command="run", **variables):
    """Runs a command in a process of its own, with further environment variables."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120", **variables}
    words = [*map(str, arguments)]
    words = words if command != "run" or "--resume" in words else [*SMALL, *words]
    return subprocess.run(
        [sys.executable, "-m", f"ddpg_jax.{command}", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


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


@pytest.mark.parametrize("name", ["a[/b]", "o[lr]", ":smile:"])
def test_paths_are_shown_as_they_are(tmp_path, name):
    done = run("--seeds", 1, "--out", f"runs/{name}", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f" runs/{name} " in done.stdout
    done = run("--resume", f"runs/{name}", folder=tmp_path)
    assert done.stdout == f"runs/{name} is finished at 200 steps: there is nothing left to do\n"
