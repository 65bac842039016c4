"""Tests the command under signals, kills, full disks, other processes, failing environments and users' settings."""

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress

import gymcases
import pytest
from command import REPOSITORY, SMALL, checkpoints, execute, refused, start, wait_for

from ddpg_jax import run
from ddpg_jax.training.arrays import read_arrays

LONG = ("--seeds", 2, "--total-steps", 100_000_000, "--eval-every", 100_000_000)


# Signals


OTHERS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)


@pytest.mark.parametrize("number", [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)])
def test_signal_ends_a_run_after_its_chunk_with_a_checkpoint_and_the_command_that_resumes_it(tmp_path, number):
    process = start("--out", "run", *LONG, "--checkpoint-every", 0.2, folder=tmp_path)
    wait_for(lambda: checkpoints(tmp_path / "run"))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"{number.name}: stopping after the current chunk" in out
    line = rf"stopped by {number.name} at step ([\d,]+); resume with: \S+ -m ddpg_jax.run --resume run\n"
    assert (found := re.fullmatch(line, err)), err
    description, _ = read_arrays(checkpoints(tmp_path / "run")[-1])
    assert description["env_steps"] == int(found[1].replace(",", ""))


def test_signal_during_compilation_ends_at_once_with_what_can_be_resumed(tmp_path):
    process = start("--out", "run", "--hidden-sizes", *[32] * 12, folder=tmp_path)
    wait_for(lambda: (tmp_path / "run/config.json").exists())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("ended by SIGINT; resume with: ")
    assert not checkpoints(tmp_path / "run")


@pytest.mark.slow
def test_second_sigint_ends_a_run_at_once(tmp_path):
    """This holds even while a chunk keeps Python waiting: here a step has so many updates that it takes minutes."""
    endless = ("--updates-per-train", 20, "--learning-starts", 1, "--hidden-sizes", 2000, 2000, "--batch-size", 100)
    process = start("--out", "run", "--seeds", 2, "--total-steps", 1e6, "--eval-every", 1e6, *endless, folder=tmp_path)
    wait_for(lambda: (tmp_path / "run/snapshots").exists())
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.startswith("ended by SIGINT; resume with: ")


# Other processes, the disk


@pytest.mark.slow
def test_second_process_is_refused_and_the_lock_dies_with_its_holder(tmp_path):
    process = start("--out", "run", *LONG, "--devices", 1, "--checkpoint-every", 0.2, folder=tmp_path)
    wait_for(lambda: checkpoints(tmp_path / "run"))
    outcome = execute("--resume", "run", folder=tmp_path)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: run is in use by process {process.pid}: wait for it or stop it")
    process.kill()
    process.communicate()
    process = start("--resume", "run", folder=tmp_path)
    wait_for(lambda: "resuming run at step" in process.stdout.readline())
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_disk_that_fills_up_ends_a_run_with_one_line_and_its_last_checkpoint_intact(tmp_path):
    """The replay grows from checkpoint to checkpoint, until one no longer fits."""
    flags = ("--seeds", 4, "--replay-capacity", 3000, "--total-steps", 3000, "--eval-every", 3000)
    outcome = execute(*flags, "--out", "run", "--checkpoint-every", 0.05, folder=tmp_path, largest_file=250_000)
    assert outcome.status == 1
    assert re.match(r"error: run/checkpoints/\d+.safetensors could not be written: File too large; resume", outcome.err)
    assert len(outcome.err.splitlines()) == 1
    newest = checkpoints(tmp_path / "run")[-1]
    assert 0 < read_arrays(newest)[0]["env_steps"] < 3000
    assert {path.suffix for path in newest.parent.iterdir()} == {".safetensors"}  # no draft
    assert execute("--resume", "run", "--quiet", folder=tmp_path) == (0, "", "")


def test_agents_that_do_not_fit_into_memory_are_refused_with_the_seeds_that_do(tmp_path):
    err = refused(run.main, "--seeds", 1_000_000, "--replay-capacity", 1_000_000, "--out", tmp_path / "run")
    found = re.match(r"error: seeds is 0:1000000, but must be at most ([\d,]+) at a time, because 1,000,000 agents "
                     r"need \S+ GiB of \S+ GiB available: run --seeds 0:(\d+), --seeds ", err)  # fmt: skip
    assert found, err
    assert int(found[1].replace(",", "")) == int(found[2])
    assert not (tmp_path / "run").exists()


# An environment of the user's


def test_environment_that_fails_leaves_a_checkpoint_of_the_last_whole_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAISES_AT", str(gymcases.COUNT["steps"] + 301))
    flags = ("--env-id", "gymnasium:gymcases:Raises-v0", "--eval-every", "200", "--max-episode-steps", "20")
    words = ("--seeds", "3", "--devices", "1", "--out", str(tmp_path / "run"))
    assert run.main([*SMALL, *flags, *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "gymnasium:gymcases:Raises-v0" in line
    assert "RuntimeError: simulator lost its connection" in line
    assert "resume with: " in line
    assert "simulator lost its connection" in (tmp_path / "run/environment_error.txt").read_text()
    steps = read_arrays(checkpoints(tmp_path / "run")[-1])[0]["env_steps"]
    assert 80 < steps <= 100
    assert run.main(["--resume", str(tmp_path / "run"), "--devices", "1"]) == 0
    assert (tmp_path / "run/summary.json").exists()


def test_error_in_the_users_code_keeps_its_traceback_and_names_the_folder(tmp_path):
    """The checks before training trace `step` twice, so the third time is when it is compiled."""
    (tmp_path / "mine.py").write_text("""
import itertools
import jax.numpy as jnp
from ddpg_jax import Environment, Step

calls = itertools.count(1)

def step(key, state, action):
    if next(calls) > 2:
        raise ValueError("no such road")
    return state, Step(jnp.zeros(1), action[0], jnp.bool_(False), jnp.bool_(False))

def step_fails_late():
    return Environment("mine", 1, (-1.0,), (1.0,), 20, lambda key: (jnp.zeros(()), jnp.zeros(1)), step)
""")
    status, _, err = execute("--env-id", "mine:step_fails_late", "--out", "run", "--seeds", 1, folder=tmp_path)
    assert status == 1
    assert '/mine.py", line 10, in step' in err
    assert "ValueError: no such road" in err
    assert re.search(r"training has failed; resume with: \S+ -m ddpg_jax.run --resume run$", err)


# Settings of the user's


@pytest.mark.slow
def test_settings_and_a_meagre_surrounding_change_no_bit_of_a_run(tmp_path):
    """Many things at once, each of which has ended a run or changed its bits."""
    assert execute("--seeds", 3, "--quiet", "--out", "plain", folder=tmp_path) == (0, "", "")
    style = tmp_path / "matplotlibrc"
    style.write_text("savefig.dpi: 1\naxes.titlesize: 1\n")
    settings = {
        "JAX_ENABLE_X64": "1", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0", "JAX_DISABLE_JIT": "1",
        "MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(style), "HOME": "/dev/null", "PYTHONWARNINGS": "error",
    }  # fmt: skip
    words = " ".join([sys.executable, "-O", "-m", "ddpg_jax.run", *SMALL, "--seeds", "3", "--quiet", "--out", "run"])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)} | settings
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(name, None)
    done = subprocess.run(["bash", "-c", f"ulimit -n 64; exec {words}"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Only Matplotlib speaks: it has no folder of its own.
    assert [line for line in done.stderr.splitlines() if "atplotlib" not in line and "MPLCONFIGDIR" not in line] == []
    tables = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("plain", "run")]
    assert tables[0] == tables[1]
    assert (tmp_path / "run/learning_curve.png").stat().st_size > 10_000  # not in the style of the rc file


def test_platform_that_is_not_there_is_refused_in_one_line(tmp_path):
    outcome = execute("--seeds", 1, "--out", "run", folder=tmp_path, JAX_PLATFORMS="nonsense")
    assert outcome.status == 2
    assert outcome.err.startswith("error: JAX_PLATFORMS is nonsense, but must be a platform that is available")
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_terminal_that_cannot_show_everything_is_shown_ascii(tmp_path):
    """A terminal of an encoding other than UTF-8 gets no traceback from the bar or the tables."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "latin-1", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "ddpg_jax.run", *SMALL, "--seeds", "1", "--out", "run"],
                               cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)  # fmt: skip
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # at its end
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in shown
    assert (tmp_path / "run/summary.json").exists()


# Kills


@pytest.mark.slow
def test_killed_runs_end_in_the_same_bits():
    """This is a shorter form of the benchmark, which kills twenty times."""
    script = REPOSITORY / "benchmarks/kill_and_resume.py"
    command = [sys.executable, str(script), "--run", "small", "--kills", "3", "--kills-per-run", "3"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=500)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "3 of 3 identical" in process.stdout
