"""The package as others get it: a sdist, the wheel that is made of it, and that wheel alone in a new environment."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from command import REPOSITORY, SMALL

pytestmark = pytest.mark.slow


def build(kind: str, source: Path, to: Path) -> Path:
    """Builds a sdist or a wheel by the project's own build backend."""
    code = f"import setuptools.build_meta as backend; print(backend.build_{kind}({str(to)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    return to / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distribution")
    source = folder / "source"
    source.mkdir()
    tracked = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=tracked, check=True)
    sdist = build("sdist", source, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder)


def test_wheel_has_the_package_its_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tracked = subprocess.run(
        ["git", "ls-files", "ddpg_jax"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    inside = [name for name in names if ".dist-info/" not in name]
    assert sorted(inside) == sorted(tracked.stdout.split())
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_alone_trains_resumes_and_reports_from_another_folder(wheel, tmp_path):
    """The dependencies are those that the wheel declares, as the registry has them today, without the lock."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def command(*words: object) -> str:
        arguments = [python, "-m", *map(str, words)]
        done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    location = subprocess.run(
        [python, "-c", "import ddpg_jax; print(ddpg_jax.__file__)"], cwd=folder, env=environment, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    assert str(tmp_path / "venv") in location
    command("ddpg_jax.run", *SMALL, "--seeds", 2, "--out", "run")
    command("ddpg_jax.run", "--resume", "run", "--total-steps", 400)
    assert json.loads((folder / "run/summary.json").read_text())["env_steps_per_agent"] == 400
    assert {"report.html", "learning_curve.png", "metrics.csv"} <= {path.name for path in (folder / "run").iterdir()}
    assert "run" in command("ddpg_jax.compare", "run")
    assert "q_estimates.png" in command("ddpg_jax.render", "run", "--only", "q_estimates")
