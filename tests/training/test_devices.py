"""The cores, the memory and the devices of a process, and JAX's settings."""

import os
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.training import devices
from ddpg_jax.training.devices import free_memory, pinned_jax_config, unused_gpu, usable_cores, usable_memory


def machine(root, files):
    """Makes a file system with these files, of which a process sees its memory and its control groups."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


JOB = {
    "proc/meminfo": "MemTotal: 4000 kB\nMemAvailable:    1000 kB\n",
    "proc/self/cgroup": "1:name=systemd:/\n0::/job/step\n",
    "sys/fs/cgroup/job/step/memory.max": "max\n",
    "sys/fs/cgroup/job/memory.max": "1000",
    "sys/fs/cgroup/job/memory.stat": "anon 1\ninactive_file 400\n",
}


@pytest.mark.parametrize(("used", "free"), [(None, 1_024_000), ("900", 500), ("1500", 0)])
def test_memory_is_what_the_machine_and_the_control_groups_leave(tmp_path, used, free):
    files = {} if used is None else {"sys/fs/cgroup/job/memory.current": used}
    assert usable_memory(machine(tmp_path, JOB | files)) == free


@pytest.mark.parametrize(
    ("folder", "limit", "cores"),
    [("", "max 100000", 64), ("", "350000 100000", 3), ("", "50000 100000", 1), ("job", "200000 100000", 2)],
)
def test_cores_are_those_of_the_affinity_and_the_quota(tmp_path, monkeypatch, folder, limit, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    assert usable_cores(machine(tmp_path, JOB | {f"sys/fs/cgroup/{folder}/cpu.max": limit})) == cores


@pytest.mark.parametrize(
    ("stats", "free"),
    [(None, 4 * 2**30), ({"bytes_limit": 100}, 100), ({"bytes_limit": 100, "bytes_in_use": 30}, 70)],
)
def test_accelerator_that_does_not_report_its_memory_is_assumed_to_have_some(stats, free):
    assert free_memory(mock.Mock(memory_stats=lambda: stats)) == free


@pytest.mark.parametrize(
    ("platform", "variable", "device", "noted"),
    [("cpu", "", "nvidia0", 1), ("cpu", "cpu", "nvidia0", 0), ("gpu", "", "nvidia0", 0), ("cpu", "", "null", 0)],
)
def test_gpu_that_is_not_used_is_noted(tmp_path, monkeypatch, platform, variable, device, noted):
    monkeypatch.setenv("JAX_PLATFORMS", variable)
    (tmp_path / device).touch()
    note = unused_gpu(platform, tmp_path)
    assert (note is not None and "pip install 'jax[cuda13]'" in note) == noted


def test_compiled_programs_are_kept_in_the_users_cache_unless_there_is_none_or_a_folder_is_set(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    cache = str(tmp_path / "ddpg_jax" / "compiled")
    monkeypatch.setattr("pathlib.Path.home", mock.Mock(side_effect=RuntimeError("no home")))
    try:
        for chosen, variable, expected in ((None, "", None), (None, tmp_path, cache), ("/chosen", tmp_path, "/chosen")):
            monkeypatch.setenv("XDG_CACHE_HOME", str(variable))
            jax.config.update("jax_compilation_cache_dir", chosen)
            devices.use_compilation_cache()
            assert jax.config.jax_compilation_cache_dir == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_users_settings_of_jax_change_no_number_and_are_restored():
    @pinned_jax_config()
    def numbers():
        with np.errstate(all="ignore"):
            return jax.random.normal(jax.random.key(0), (3,)) + jnp.ones((2, 3)) * np.float64(1)

    expected = numbers()
    settings = {
        "jax_enable_x64": True, "jax_default_prng_impl": "rbg", "jax_threefry_partitionable": False,
        "jax_numpy_rank_promotion": "raise", "jax_numpy_dtype_promotion": "strict",
        "jax_default_matmul_precision": "bfloat16",
    }  # fmt: skip
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        found = numbers()
        assert {name: getattr(jax.config, name) for name in settings} == settings
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def python(*lines, **variables):
    """Runs lines in a process of its own that may use three cores; returns what it prints."""
    first = (
        "import os, jax; os.sched_getaffinity = lambda process: {0, 1, 2}; import ddpg_jax.training.devices as devices"
    )
    unset = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-c", "\n".join([first, *lines])]
    environment = {**unset, "JAX_PLATFORMS": "cpu", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def attempt(call):
    return "try:", f"    {call}", "except Exception as error:", "    print(error)"


HOW = "call ddpg_jax.use_all_cores() before JAX's first operation, in a notebook after a restart of the kernel"


def test_all_cores_are_used_from_python():
    twice = ["devices.use_all_cores(2)", "print(jax.device_count())"] * 2  # as a notebook's cell
    fault = f"num_devices is 3, but JAX has started with 2 on the CPU: {HOW}"
    assert python(*twice, *attempt("devices.use_all_cores()")) == ["2", "2", fault]


@pytest.mark.parametrize(
    ("line", "variables", "num_devices"),
    [
        ("", {}, 3),
        ("jax.devices()", {}, 1),
        ("", {"JAX_NUM_CPU_DEVICES": "2"}, 2),
        ("", {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, 2),
    ],
)
def test_training_uses_all_cores_unless_jax_has_started_or_the_user_has_chosen(line, variables, num_devices):
    found = python(line, "for n in (None, 1, 2): print(devices.use_all_cores_if_not_started(n))", **variables)
    note = f"JAX uses {num_devices} of 3 cores: to train on all of them, {HOW}"
    assert found == [note if num_devices < wanted else "None" for wanted in (3, 1, 2)]
