"""The cores, the memory and the devices that a process may use, and JAX's settings for them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

UNKNOWN_DEVICE_BYTES = 4 * 2**30
"""Memory that is assumed free on an accelerator, or on a machine, that does not report it."""

PINNED_JAX_CONFIG: dict[str, Any] = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_matmul_precision": "highest",
}
"""JAX's settings that are not taken from the environment or the caller: the bits of a run must not depend on them.

Products of float32 are computed in float32 on every device; by default a TPU would round their operands to bfloat16,
and an NVIDIA GPU to TF32. On a CPU this changes no bit. Keys of the implementation "rbg" depend on their place under
`vmap`, and so on the number of agents.
"""


@contextmanager
def pinned_jax_config() -> Iterator[None]:
    """Sets `PINNED_JAX_CONFIG` within a `with` statement or a decorated function, in the current thread."""
    import jax

    with ExitStack() as stack:
        for name, value in PINNED_JAX_CONFIG.items():
            stack.enter_context(getattr(jax, name.removeprefix("jax_"))(value))
        yield


def use_all_cores(num_devices: int | None = None) -> None:
    """Lets JAX see every usable core as a device, so that agents train in parallel.

    Call it before JAX's first operation. It changes nothing if JAX has started with this number of devices, so that a
    notebook's cell can be executed again.

    Args:
        num_devices: the number of devices; default: one for each core that this process may use.

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
                f"num_devices is {num_devices}, but JAX has started with {started} on the CPU: call "
                f"ddpg_jax.use_all_cores() before JAX's first operation, in a notebook after a restart of the kernel"
            ) from error


def use_all_cores_if_not_started(num_agents: int | None = None) -> str | None:
    """Calls `use_all_cores` if JAX has not started and the user has not set the number of devices.

    Args:
        num_agents: the number of agents that will train; default: enough for all cores.

    Returns:
        A note to the user if agents could train on more cores than JAX uses; else None.

    Raises:
        ValueError: if JAX_PLATFORMS names a platform that is not available.
    """
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    if getattr(jax.config, "jax_num_cpu_devices") < 0 and "xla_force_host_platform_device_count" not in flags:  # noqa: B009
        with suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", usable_cores())
            return None
    require_platform()
    devices, cores = jax.devices(), usable_cores()
    if devices[0].platform != "cpu" or len(devices) >= min(cores, num_agents or cores):
        return None
    return (
        f"JAX uses {len(devices)} of {cores} cores: to train on all of them, call ddpg_jax.use_all_cores() before "
        f"JAX's first operation, in a notebook after a restart of the kernel"
    )


def use_compilation_cache() -> None:
    """Lets JAX keep compiled programs in the user's cache, unless another folder is set for them."""
    import jax

    with suppress(RuntimeError):  # the user has no home
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
            jax.config.update("jax_compilation_cache_dir", str(cache / "ddpg_jax" / "compiled"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def require_platform() -> None:
    """Starts JAX's devices.

    Raises:
        ValueError: if JAX_PLATFORMS names a platform that is not available.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second if JAX lacks what the platform needs
        platforms = os.environ.get("JAX_PLATFORMS", "not set")
        reason = f": {str(error).splitlines()[0]}" if str(error) else ""
        raise ValueError(
            f"JAX_PLATFORMS is {platforms}, but must be a platform that is available on this machine{reason}"
        ) from error


def unused_gpu(platform: str, dev: Path = Path("/dev")) -> str | None:
    """Returns a note if JAX does not use this machine's NVIDIA GPU, and JAX_PLATFORMS does not say so; else None."""
    if platform != "cpu" or os.environ.get("JAX_PLATFORMS") or not (dev / "nvidia0").exists():
        return None
    return (
        "this machine has an NVIDIA GPU, but JAX does not use it: pip install 'jax[cuda13]' (or 'jax[cuda12]' for a "
        "driver without CUDA 13); JAX_PLATFORMS=cpu uses the CPU without this note"
    )


def free_memory(device: "jax.Device") -> int:
    """Returns the free bytes of an accelerator; `UNKNOWN_DEVICE_BYTES` if it does not report them."""
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else UNKNOWN_DEVICE_BYTES


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores that this process may use: its affinity, within its control groups' CPU quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        cores = os.cpu_count() or 1
    return max(1, int(min(cores, *map(_cpu_quota, _control_groups("cpu", root)))))


def _cpu_quota(group: Path) -> float:
    """Returns the cores that a control group grants; infinitely many without a limit."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
            if quota > 0:
                return quota / period
    return inf


def usable_memory(root: Path = Path("/")) -> int:
    """Returns the bytes that this process may still use: the machine's free memory, within its control groups' limits.

    Memory that only caches files counts as free.
    """
    free = _free_machine_memory(root)
    for group in _control_groups("memory", root):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError):  # no such file, or no limit: "max"
                room = int((group / limit).read_text()) - int((group / used).read_text())
                counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                free = min(free, max(0, room + int(counts.get(cache, 0))))
    return free


def _free_machine_memory(root: Path) -> int:
    """Returns the free bytes of the machine; half of all where only their total is known."""
    with suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return UNKNOWN_DEVICE_BYTES


def _control_groups(controller: str, root: Path) -> set[Path]:
    """Returns the folders of this process's control groups and of those around them, of versions 1 and 2."""
    top = root / "sys/fs/cgroup"
    folders = {top, top / controller}
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                base = top / controller if controllers else top
                group = base / path.lstrip("/")
                folders |= {group, *(folder for folder in group.parents if base in folder.parents)}
    return folders
