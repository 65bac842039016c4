"""The cores, the memory and the devices that a process may use, and JAX's settings for them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

UNKNOWN_DEVICE_BYTES = 4 * 2**30
"""Memory that is assumed free on an accelerator that does not report it."""

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

By default a TPU would round the operands of float32 products to bfloat16, and an NVIDIA GPU to TF32. Keys of the
implementation "rbg" depend on their place under `vmap`, and so on the number of agents.
"""

_HOW = "call ddpg_jax.use_all_cores() before JAX's first operation, in a notebook after a restart of the kernel"


@contextmanager
def pinned_jax_config() -> Iterator[None]:
    """Sets `PINNED_JAX_CONFIG` within a `with` statement or a decorated function, in the current thread."""
    import jax

    with ExitStack() as stack:
        for name, value in PINNED_JAX_CONFIG.items():
            stack.enter_context(getattr(jax, name.removeprefix("jax_"))(value))
        yield


def use_all_cores(num_devices: int | None = None) -> None:
    """Lets JAX see this number of devices, by default one for each usable core, so that agents train in parallel.

    Call it before JAX's first operation; repeating the call, as a notebook does, changes nothing.

    Raises:
        RuntimeError: if JAX has started with another number of devices.
    """
    import jax

    num_devices = num_devices or usable_cores()
    try:
        jax.config.update("jax_num_cpu_devices", num_devices)
    except RuntimeError as error:
        if (started := len(jax.devices("cpu"))) != num_devices:
            fault = f"num_devices is {num_devices}, but JAX has started with {started} on the CPU"
            raise RuntimeError(f"{fault}: {_HOW}") from error


def use_all_cores_if_not_started(num_agents: int | None = None) -> str | None:
    """Calls `use_all_cores` if JAX has not started and the user has not set the number of devices.

    Returns a note to the user if `num_agents` (default: enough) could train on more cores than JAX uses, else None.
    Raises ValueError if JAX_PLATFORMS names a platform that is not available.
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
    return f"JAX uses {len(devices)} of {cores} cores: to train on all of them, {_HOW}"


def use_compilation_cache() -> None:
    """Lets JAX keep compiled programs in the user's cache, unless another folder is set for them."""
    import jax

    with suppress(RuntimeError):  # the user has no home
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
            jax.config.update("jax_compilation_cache_dir", str(cache / "ddpg_jax" / "compiled"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def require_platform() -> None:
    """Starts JAX's devices; raises ValueError if JAX_PLATFORMS names a platform that is not available."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second if JAX lacks what the platform needs
        platforms, reason = os.environ.get("JAX_PLATFORMS", "not set"), str(error).splitlines()[:1]
        fault = f"JAX_PLATFORMS is {platforms}, but must be a platform that is available on this machine"
        raise ValueError(": ".join([fault, *reason])) from error


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
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups(root):
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            quota, period = map(int, (group / "cpu.max").read_text().split())
            cores = min(cores, quota / period)
    return max(1, int(cores))


def usable_memory(root: Path = Path("/")) -> int:
    """Returns the bytes that this process may use, within its control groups' limits; file caches count as free."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    with suppress(OSError, IndexError):  # only Linux has it
        free = 1024 * _number_after("MemAvailable:", root / "proc/meminfo")
    for group in _control_groups(root):
        with suppress(OSError, ValueError, IndexError):
            room = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
            free = min(free, max(0, room + _number_after("inactive_file", group / "memory.stat")))
    return free


def _number_after(word: str, path: Path) -> int:
    return int(path.read_text().partition(word)[2].split()[0])


def _control_groups(root: Path) -> list[Path]:
    """Returns the folders of this process's control group (version 2) and of those around it."""
    group = root / "sys/fs/cgroup"
    with suppress(OSError):
        group /= (root / "proc/self/cgroup").read_text().partition("0::/")[2].strip()
    return [group, *group.parents]
