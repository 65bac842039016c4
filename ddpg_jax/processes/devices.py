"""Devices for the command: one host device a core on a CPU. To be called before JAX has started its backend."""

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use: its affinity, within the CPU quota of its control group."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(_quota(Path("/sys/fs/cgroup")))))


def _quota(cgroup: Path) -> float:
    """Cores' worth of time that the control group grants; infinite without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return 1e9
    try:
        return int(quota) / int(period) if int(quota) > 0 else 1e9
    except ValueError:  # "max"
        return 1e9


def usable_memory() -> int:
    """Bytes that this process may still take: what the machine has free, within the limit of its control group."""
    free = int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except OSError:
        pass
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            room = int((Path("/sys/fs/cgroup") / limit).read_text()) - int((Path("/sys/fs/cgroup") / used).read_text())
            free = min(free, max(room, 0))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return free


def devices_each(devices: int | None, earlier_devices: int | None, num_processes: int) -> int | None:
    """Devices that each process takes: of those asked for, or else of those that the run has had; None: all.

    Raises:
        ValueError: if those asked for cannot be divided.
    """
    if devices is None:
        return None if earlier_devices is None else max(1, earlier_devices // num_processes)
    if devices % num_processes:
        raise ValueError(
            f"devices is {devices}, but must be a multiple of num_processes, {num_processes}: every process takes as "
            f"many as the others"
        )
    return devices // num_processes


LOOP_OPTION = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=16384"
"""Lets XLA compile a loop on the CPU that touches up to so many bytes into one kernel (its own limit is 1,024).

Drawing a minibatch's random numbers is such a loop (measured: `benchmarks/README.md`). An XLA that does not know the
option ignores it.
"""


def prepare(num_devices: int | None) -> None:
    """Makes host devices available, one a usable core unless told otherwise, and a cache of compiled programs.

    Only a command does this: importing the package leaves JAX as it is. Flags of the user's come after the one set
    here, so that theirs count; where `XLA_FLAGS` names a file of flags, it is left alone.
    """
    import jax

    flags = os.environ.get("XLA_FLAGS", "").strip()
    if not flags or flags.startswith("-"):
        os.environ["XLA_FLAGS"] = f"{LOOP_OPTION} {flags}"
    jax.config.update("jax_num_cpu_devices", num_devices or usable_cores())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddpg_jax"
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(cache / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
