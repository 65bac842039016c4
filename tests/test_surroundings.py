"""Other people's environments: what a user has set for other programs ends no run and changes no result."""

import contextlib
import errno
import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from command import REPOSITORY, SMALL, main

from ddpg_jax.domains import from_words
from ddpg_jax.processes import devices, folder_lock, supervisor
from ddpg_jax.processes.output import Enduring
from ddpg_jax.processes.signals import Interruption, heeded
from ddpg_jax.runs import estimates, logs
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


def test_no_home_means_no_cache_of_programs(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(devices.Path, "home", mock.Mock(side_effect=RuntimeError("no home")))
    assert devices._cache_folder() is None


@pytest.mark.parametrize("option", ["out", "resume"])
def test_tilde_is_the_users_home(monkeypatch, option):
    monkeypatch.setenv("HOME", "/somewhere")
    assert from_words(option, ["~/x"], OPTION_ANNOTATIONS[option]) == Path("/somewhere/x")
    assert from_words(option, ["~no-such-user/x"], OPTION_ANNOTATIONS[option]) == Path("~no-such-user/x")


def test_memory_is_known_on_systems_without_linuxs_names(monkeypatch):
    pages = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}

    def sysconf(name):
        if name not in pages:
            raise ValueError("unrecognized configuration name")
        return pages[name]

    monkeypatch.setattr(devices.Path, "read_text", mock.Mock(side_effect=OSError("no such file")))
    monkeypatch.setattr(devices.os, "sysconf", sysconf)
    assert devices._free_memory() == 1000 * 4096 // 2
    pages.clear()
    assert devices._free_memory() == 4 * 2**30


def test_the_control_groups_around_ones_own_count(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job_7/step_0\n")
    root = tmp_path / "fs"
    found = devices._control_groups(own, root)
    assert {root, root / "slurm", root / "slurm/job_7", root / "slurm/job_7/step_0"} <= set(found)
    own.write_text("5:memory:/user/1\n1:cpu:/other\n")
    found = devices._control_groups(own, root)
    assert {root / "memory", root / "memory/user", root / "memory/user/1"} <= set(found)
    assert root / "other" not in found


def test_cached_files_count_as_free_memory(tmp_path, monkeypatch):
    for name, text in (
        ("memory.max", "1000"),
        ("memory.current", "900"),
        ("memory.stat", "anon 1\ninactive_file 400\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(devices, "_control_groups", lambda own, root: [tmp_path])
    assert devices.usable_memory() == 1000 - 900 + 400


def test_descriptor_and_handlers_of_an_embedding_program_are_as_before():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        with Interruption():
            assert signal.set_wakeup_fd(-1) != writer
        assert signal.set_wakeup_fd(-1) == writer
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def test_signals_that_announce_an_end_stop_a_run_unless_the_program_handles_them():
    assert {signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU} <= set(heeded())
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        assert signal.SIGUSR1 not in heeded()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.slow
def test_processes_of_one_machine_ask_no_proxy(tmp_path):
    """A proxy that does not answer would keep them waiting for minutes."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    flags = ("--seeds", 2, "--quiet", "--distributed", "--num-processes", 2, "--out", "run")
    done = run(*flags, folder=tmp_path, **nowhere)
    assert (done.returncode, done.stderr) == (0, "")


def test_proxies_between_machines_are_left_as_they_are(monkeypatch):
    monkeypatch.setenv("no_proxy", "a.example")
    assert supervisor._variables("127.0.0.1:80")["no_proxy"] == "a.example,127.0.0.1,localhost"
    assert supervisor._variables("other.example:80")["no_proxy"] == "a.example"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_costs_a_note(tmp_path, number):
    error = OSError(number, os.strerror(number))
    with mock.patch.object(folder_lock.fcntl, "flock", side_effect=error):
        outcome = main("--seeds", 1, "--out", tmp_path / "run")
    assert outcome.status == 0
    assert outcome.err == (
        f"note: {tmp_path / 'run'} cannot be locked ({os.strerror(number)}): use it in one process at a time\n"
    )


@pytest.mark.parametrize(
    ("variables", "starts"),
    [
        ({"WANDB_MODE": "offline"}, True),
        ({"WANDB_MODE": "disabled"}, True),
        ({"WANDB_API_KEY": "x" * 40}, True),
        ({}, False),
        ({"WANDB_MODE": "online"}, False),
    ],
)
def test_weights_and_biases_without_a_key_is_refused_before_anything_is_made(tmp_path, monkeypatch, variables, starts):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(sys, "stdin", None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if starts:
        logs.require(["wandb"])
        return
    outcome = main("--log", "wandb", "--out", tmp_path / "run")
    assert outcome.status == 2
    assert outcome.err.startswith("error: log is wandb, but must have a key: set WANDB_API_KEY, run `wandb login`")
    assert not (tmp_path / "run").exists()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    logs.require(["wandb"])


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


def test_characters_that_cannot_be_encoded_are_replaced():
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = Enduring(written)
    stream.write("a − b … ⠋\n")
    stream.flush()
    assert written.buffer.getvalue() == b"a - b ... ?\n"


@pytest.mark.parametrize(
    ("platform", "variable", "device", "noted"),
    [
        ("cpu", None, "nvidia0", True),
        ("cpu", "", "nvidia0", True),
        ("cpu", "cpu", "nvidia0", False),
        ("gpu", None, "nvidia0", False),
        ("cpu", None, "null", False),
    ],
)
def test_gpu_that_is_not_used_is_noted(tmp_path, monkeypatch, platform, variable, device, noted):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if variable is not None:
        monkeypatch.setenv("JAX_PLATFORMS", variable)
    (tmp_path / device).touch()
    note = devices.unused_gpu(platform, tmp_path)
    assert (note is not None and "pip install 'ddpg_jax[cuda]'" in note) == noted


@pytest.mark.parametrize(
    ("stats", "free"),
    [
        (None, 4 * 2**30),
        ({}, 4 * 2**30),
        ({"bytes_limit": 100}, 100),
        ({"bytes_limit": 100, "bytes_in_use": 30}, 70),
    ],
)
def test_accelerator_that_does_not_tell_its_memory_is_taken_to_have_some(stats, free):
    assert estimates.free_memory(mock.Mock(memory_stats=lambda: stats)) == free
