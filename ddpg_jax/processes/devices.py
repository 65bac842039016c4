"""The cores, the memory and the devices of a command."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any


def usable_cores() -> int:
    """Returns the number of cores that this process may use: its affinity, within its control group's CPU quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(_quota(Path("/sys/fs/cgroup")))))


def _quota(cgroup: Path) -> float:
    """Returns the CPU time per second that the control group grants, in cores; a large number without a limit."""
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
    """Returns the bytes that this process may still use: the machine's free memory, within its control groups' limits.

    Memory that only caches files counts as free.
    """
    free = _free_memory()
    for folder in _control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                room = int((folder / limit).read_text()) - int((folder / used).read_text())
                lines = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such file, or no limit: "max"
                continue
            free = min(free, max(0, room + int(lines.get(cache, 0))))
    return free


def _free_memory() -> int:
    """Returns the free bytes of the machine; on systems that do not tell, half of all, or 4 GiB."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    for name, share in (("SC_AVPHYS_PAGES", 1.0), ("SC_PHYS_PAGES", 0.5)):  # macOS has only the second
        with suppress(OSError, ValueError, AttributeError):
            return int(share * os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"))
    return 4 * 2**30


def _control_groups(own: Path, root: Path) -> list[Path]:
    """Returns the folders of the control groups that limit this process's memory: its own and those around it."""
    folders = {root, root / "memory"}
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            base = root / "memory" if "memory" in controllers.split(",") else root
            if controllers == "" or base != root:
                inner = base / path.lstrip("/")
                folders |= {inner, *(folder for folder in inner.parents if base in (folder, *folder.parents))}
    return sorted(folders)


def devices_each(devices: int | None, earlier_devices: int | None, num_processes: int) -> int | None:
    """Returns the number of devices per process, from those requested or those that the run had; None: all.

    Raises:
        ValueError: if the requested devices cannot be divided equally.
    """
    if devices is None:
        return None if earlier_devices is None else max(1, earlier_devices // num_processes)
    if devices % num_processes:
        raise ValueError(
            f"devices is {devices}, but must be a multiple of num_processes, {num_processes}: all processes use "
            f"equally many"
        )
    return devices // num_processes


OWN_SETTINGS: dict[str, Any] = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_matmul_precision": "highest",
}
"""JAX's settings that are not taken from the environment or the caller: a run's bits must not depend on them.

Products of float32 are computed as such on every device; by default a TPU would round their operands to bfloat16, and
an NVIDIA GPU to TF32. On a CPU this changes no bit. Keys of the implementation "rbg" depend on their place under
`vmap`, and so on the size of a group.
"""


@contextmanager
def own_settings() -> Iterator[None]:
    """Holds JAX to these settings within a block or a decorated function, in the current thread."""
    import jax

    with ExitStack() as stack:
        for name, value in OWN_SETTINGS.items():
            stack.enter_context(getattr(jax, name.removeprefix("jax_"))(value))
        yield


def prepare(num_devices: int | None) -> None:
    """Makes host devices available, one per usable core unless told otherwise, and a cache of compiled programs.

    Only a command does this: importing the package leaves JAX as it is.
    """
    import jax

    for name, value in OWN_SETTINGS.items():
        jax.config.update(name, value)
    use_all_cores(num_devices)
    use_compilation_cache()


def use_all_cores(num_devices: int | None = None) -> None:
    """Lets JAX see every usable core as a device, so that agents train side by side.

    Call it before JAX's first operation. It changes nothing if JAX has started with as many devices, so that a
    notebook's cell can be executed again.

    Args:
        num_devices: the number of devices; None: one for each core that this process may use.

    Raises:
        RuntimeError: if JAX has started with another number of devices.
    """
    import jax

    num_devices = num_devices or usable_cores()
    try:
        jax.config.update("jax_num_cpu_devices", num_devices)
    except RuntimeError as error:
        started = len(jax.devices("cpu"))
        if started != num_devices:
            raise RuntimeError(
                f"JAX has started with {started} CPU device(s), but {num_devices} are requested: call "
                f"ddpg_jax.use_all_cores() before JAX's first operation, in a notebook after a restart of the kernel"
            ) from error


def unused_cores(num_agents: int) -> str | None:
    """Returns a note if so many agents could train on more cores than JAX sees as devices of a CPU; else None."""
    import jax

    num_devices = len(jax.devices())
    if jax.devices()[0].platform != "cpu" or num_devices >= min(num_agents, usable_cores()):
        return None
    return (
        f"{num_agents} agents train on {num_devices} of {usable_cores()} cores: call ddpg_jax.use_all_cores() before "
        f"JAX's first operation"
    )


def use_compilation_cache() -> None:
    """Lets JAX keep compiled programs in the user's cache, unless it has been given another place for them."""
    import jax

    cache = _cache_folder()
    if cache is not None and getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(cache / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def require_platform() -> None:
    """Starts JAX's devices.

    Raises:
        ValueError: if JAX_PLATFORMS names a platform that is not here.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second if JAX lacks what the platform needs
        platforms = os.environ.get("JAX_PLATFORMS", "not set")
        reason = f": {str(error).splitlines()[0]}" if str(error) else ""
        raise ValueError(f"JAX_PLATFORMS is {platforms}, but must name a platform that is here{reason}") from error


def unused_gpu(platform: str, dev: Path = Path("/dev")) -> str | None:
    """Returns a note if this machine has an NVIDIA GPU that JAX does not use, though it was not told so; else None."""
    if platform != "cpu" or os.environ.get("JAX_PLATFORMS") or not (dev / "nvidia0").exists():
        return None
    return (
        "this machine has an NVIDIA GPU, but JAX does not use it: pip install 'ddpg_jax[cuda]', or 'ddpg_jax[cuda12]' "
        "for a driver that does not know CUDA 13; JAX_PLATFORMS=cpu uses the CPU without this note"
    )


def _cache_folder() -> Path | None:
    """Returns the folder of cached files; None where the user has no home."""
    with suppress(RuntimeError):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddpg_jax"
    return None
