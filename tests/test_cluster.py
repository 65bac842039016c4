"""Tasks on a Ray cluster: the seeds that each trains, what is refused, and what a lost worker costs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import wait_for

from ddpg_jax import cluster, run
from ddpg_jax.command_line import to_words

ROOT = Path(__file__).parent.parent
SMALL = ("--hidden-sizes", "8", "--batch-size", "8", "--replay-capacity", "500", "--learning-starts", "20",
         "--total-steps", "20000", "--eval-every", "5000", "--final-episodes", "64")  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--per-task 0", "per_task is 0, but must be a whole number >= 1"),
        ("--gamma 2", "gamma is 2, but must be a number in [0, 1]"),
        ("--resume here", "unknown option --resume"),
    ],
)
def test_bad_option_is_refused_in_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cluster.main(line.split())
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_folder_that_is_not_new_is_refused_and_left_alone(tmp_path, capsys):
    pytest.importorskip("ray")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SystemExit):
        cluster.main(["--out", str(tmp_path)])
    assert "but must be a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.parent.iterdir() if path.name.startswith(tmp_path.name)] == [tmp_path.name]


def test_options_reach_the_tasks_as_words():
    line = ["--verbose", "--hidden-sizes", "8", "16", "--sweep", "tau=0.1,0.2", "--sweep=noise=ou,gaussian",
            "--env-args", "a=1", "b=-2", "--actor-lr", "1e-3", "--noise-reset", "--no-adam-eps-hat", "--log", "none",
            "--max-episode-steps", "None", "--seeds", "2:5", "--config", "best.json"]  # fmt: skip
    given = run.read(line)
    assert run.read(to_words(given)) == given


def test_tasks_of_other_options_are_not_taken_for_those_of_this_command(tmp_path):
    line = ["--gamma=0.9", "--devices=1", "--seeds=2:4"]
    config = {"format": 2, "preset": "pendulum", "seeds": [2, 4], "seed": 0, "device": "1 x cpu", "versions": {},
              "config": {}, "configs": [], "command": ["python", "-m", "ddpg_jax.run", *line, "--out=x"]}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    cluster.require_same_run(tmp_path, ["--devices=2", "--gamma", "0.9", "--seeds", "2:4"])
    for words, message in (
        (line[1:], "gamma is not given, but must be 0.9, as in"),
        ([*line, "--tau=0.1"], "tau is 0.1, but must be not given, as in"),
        (line[:2], "seeds is not given, but must be 2:4, as in"),
    ):
        with pytest.raises(ValueError, match=message):
            cluster.require_same_run(tmp_path, words)


def process_in(folder: Path) -> int | None:
    """The process that trains in a folder, once it has a checkpoint there."""
    if not any(folder.glob("checkpoints/*.safetensors")):
        return None
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if {str(folder).encode(), b"ddpg_jax.run"} <= {*(path / "cmdline").read_bytes().split(b"\0")}:
                return int(path.name)
    return None


@pytest.mark.slow
def test_killed_worker_is_replaced_and_the_merged_run_has_the_bytes_of_one_process(tmp_path):
    pytest.importorskip("ray")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*SMALL, "--checkpoint-every", "1"]
    command = subprocess.Popen(
        [sys.executable, "-m", "ddpg_jax.cluster", "--seeds", "4", "--per-task", "2", "--out", "all", *words],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: process_in(tmp_path / "all-tasks/2-4"), 300)
    trained = process_in(tmp_path / "all-tasks/2-4")
    status = Path(f"/proc/{trained}/stat").read_text().rpartition(")")[2].split()
    os.kill(int(status[1]), signal.SIGKILL)  # its parent, the worker
    wait_for(lambda: not Path(f"/proc/{trained}").exists(), 10)  # the training process ends with its worker
    out, err = command.communicate(timeout=500)
    assert command.returncode == 0, err
    assert "4 agents" in out
    assert "resuming" in (tmp_path / "all-tasks/2-4.log").read_text()
    one = [sys.executable, "-m", "ddpg_jax.run", "--seeds", "4", "--devices", "1", "--out", "one", *words]
    subprocess.run(one, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for name in ("metrics.csv", "episodes.csv", "policy/actors.safetensors", "policy/policy.json"):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
