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


MEMINFO = {"proc/meminfo": "MemTotal: 4000 kB\nMemAvailable:    1000 kB\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 1_024_000),
        # version 2: the group of the process, one around it, and cached files
        ({"proc/self/cgroup": "0::/job/step\n",
          "sys/fs/cgroup/job/step/memory.max": "max\n",
          "sys/fs/cgroup/job/memory.max": "1000", "sys/fs/cgroup/job/memory.current": "900",
          "sys/fs/cgroup/job/memory.stat": "anon 1\ninactive_file 400\n"}, 500),
        # version 1, also as a container sees it, at the top
        ({"proc/self/cgroup": "5:memory:/user/1\n1:cpu:/other\n",
          "sys/fs/cgroup/memory/user/memory.limit_in_bytes": "1000",
          "sys/fs/cgroup/memory/user/memory.usage_in_bytes": "900",
          "sys/fs/cgroup/memory/user/memory.stat": "total_inactive_file 7\n"}, 107),
        ({"proc/self/cgroup": "5:memory:/docker/abc\n",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1200",
          "sys/fs/cgroup/memory/memory.stat": ""}, 0),
        # the group of another controller does not count
        ({"proc/self/cgroup": "1:cpu:/other\n",
          "sys/fs/cgroup/cpu/other/memory.max": "1", "sys/fs/cgroup/cpu/other/memory.current": "1",
          "sys/fs/cgroup/cpu/other/memory.stat": ""}, 1_024_000),
    ],
)  # fmt: skip
def test_memory_is_what_the_machine_and_the_control_groups_leave(tmp_path, files, free):
    assert usable_memory(machine(tmp_path, MEMINFO | files)) == free


def test_memory_is_known_on_systems_without_linuxs_files(tmp_path, monkeypatch):
    pages = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}

    def sysconf(name):
        if name not in pages:
            raise ValueError("unrecognized configuration name")
        return pages[name]

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert usable_memory(tmp_path) == 1000 * 4096 // 2
    pages.clear()
    assert usable_memory(tmp_path) == 4 * 2**30


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 64),
        ({"sys/fs/cgroup/cpu.max": "350000 100000"}, 3),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "200000 100000"}, 2),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_cores_are_those_of_the_affinity_and_the_quota(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    assert usable_cores(machine(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("stats", "free"),
    [
        (None, 4 * 2**30),
        ({}, 4 * 2**30),
        ({"bytes_limit": 100}, 100),
        ({"bytes_limit": 100, "bytes_in_use": 30}, 70),
    ],
)
def test_accelerator_that_does_not_report_its_memory_is_assumed_to_have_some(stats, free):
    assert free_memory(mock.Mock(memory_stats=lambda: stats)) == free


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
    note = unused_gpu(platform, tmp_path)
    assert (note is not None and "pip install 'jax[cuda13]'" in note) == noted


def test_compiled_programs_are_kept_in_the_users_cache_unless_a_folder_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        devices.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "ddpg_jax" / "compiled")
        jax.config.update("jax_compilation_cache_dir", "/elsewhere")
        devices.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "/elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_user_without_a_home_has_no_cache_of_programs(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", mock.Mock(side_effect=RuntimeError("no home")))
    before = jax.config.jax_compilation_cache_dir
    devices.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before


def test_users_settings_of_jax_change_no_number_and_are_restored():
    @pinned_jax_config()
    def numbers():
        with np.errstate(all="ignore"):
            return jax.random.normal(jax.random.key(0), (3,)) + jnp.ones((2, 3)) * np.float64(1)

    expected = numbers()
    settings = {
        "jax_enable_x64": True,
        "jax_default_prng_impl": "rbg",
        "jax_threefry_partitionable": False,
        "jax_numpy_rank_promotion": "raise",
        "jax_numpy_dtype_promotion": "strict",
        "jax_default_matmul_precision": "bfloat16",
    }
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
    script = "\n".join(["import os", "os.sched_getaffinity = lambda process: {0, 1, 2}", "import jax", *lines])
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environment, "JAX_PLATFORMS": "cpu", **variables},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_all_cores_are_used_from_python():
    assert python(
        "import ddpg_jax.training.devices as devices",
        "devices.use_all_cores(2)",
        "print(jax.device_count())",
        "devices.use_all_cores(2)  # again, as a notebook's cell",
        "try:",
        "    devices.use_all_cores(3)",
        "except RuntimeError as error:",
        "    print(error)",
    ) == [
        "2",
        "num_devices is 3, but JAX has started with 2 on the CPU: call ddpg_jax.use_all_cores() before JAX's first "
        "operation, in a notebook after a restart of the kernel",
    ]  # fmt: skip


USE = (
    "from ddpg_jax.training.devices import use_all_cores_if_not_started as use",
    "print(use(), use(1), use(2), jax.device_count())",
)


def test_training_uses_all_cores_if_jax_has_not_started():
    assert python(*USE) == ["None None None 3"]


NOTE = (
    "JAX uses {} of 3 cores: to train on all of them, call ddpg_jax.use_all_cores() before JAX's first operation, in a "
    "notebook after a restart of the kernel"
)


@pytest.mark.parametrize(
    ("lines", "variables", "num_devices"),
    [
        (["jax.devices()"], {}, 1),
        ([], {"JAX_NUM_CPU_DEVICES": "2"}, 2),
        ([], {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, 2),
    ],
)
def test_devices_that_jax_or_the_user_has_chosen_stay_with_a_note(lines, variables, num_devices):
    note = NOTE.format(num_devices)
    for_two_agents = note if num_devices < 2 else None
    assert python(*lines, *USE, **variables) == [f"{note} None {for_two_agents} {num_devices}"]


def test_platform_that_is_not_available_is_refused_in_one_line():
    require = (
        "from ddpg_jax.training.devices import require_platform",
        "try:", "    require_platform()", "except ValueError as error:", "    print(error)",
    )  # fmt: skip
    (line,) = python(*require, JAX_PLATFORMS="nonsense")
    assert line.startswith("JAX_PLATFORMS is nonsense, but must be a platform that is available on this machine")
