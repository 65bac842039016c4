"""Estimates of the memory and the time that training needs, and their units for a reader."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.loop import Setup
from ddpg_jax.config import Config
from ddpg_jax.population.programs import Placement
from ddpg_jax.processes.devices import usable_memory
from ddpg_jax.processes.team import ALONE, Team, processes_on_this_host

USABLE_SHARE = 0.85
"""Share of the free memory that a run plans to fill."""

FIXED_BYTES = 900 * 2**20
"""Memory for everything except the agents: Python, JAX, the compiled programs, and agents on their way into a file."""

UNKNOWN_DEVICE_BYTES = 4 * 2**30
"""Memory that is planned for on an accelerator that does not tell how much it has."""

_CPU_FLOPS = 110e9
"""Float32 operations per second of a core on these matrix products; used only to estimate the time."""
_CPU_STEP_SECONDS = 45e-6
"""Seconds of a step in addition to its matrix products; used only to estimate the time."""
_ACCELERATOR_STEP_SECONDS = 400e-6
"""Seconds in which an accelerator launches the kernels of one step of a group; used only to estimate the time."""


def available_memory(placement: Placement, team: Team = ALONE) -> int:
    """Returns the bytes for agents on all devices; each process counts as much as the process with the least memory."""
    if placement.devices[0].platform == "cpu":
        own = int(USABLE_SHARE * usable_memory() / processes_on_this_host(team)) - FIXED_BYTES
    else:
        own_devices = [device for device in placement.devices if device.process_index == team.index]
        own = int(USABLE_SHARE * sum(free_memory(device) for device in own_devices))
    return team.size * max(0, min(team.gather(own)))


def free_memory(device: jax.Device) -> int:
    """Returns the free bytes of an accelerator; `UNKNOWN_DEVICE_BYTES` if it does not tell."""
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else UNKNOWN_DEVICE_BYTES


def estimate_seconds(config: Config, setup: Setup, placement: Placement, num_agents: int, agent: Any) -> float:
    """Returns a rough guess of the training time in seconds, from the updates' arithmetic and a cost per step."""
    flops = config.num_updates(config.total_steps) * update_flops(agent, setup.batch_size)
    if placement.devices[0].platform != "cpu":
        return config.total_steps * _ACCELERATOR_STEP_SECONDS * placement.num_blocks(num_agents)
    agents_per_core = placement.num_blocks(num_agents) * placement.group_size
    return agents_per_core * (flops / _CPU_FLOPS + config.total_steps * _CPU_STEP_SECONDS)


def update_flops(agent: Any, batch_size: int) -> int:
    """Returns the floating-point operations of an update's matrix products: two per kernel entry, transition and pass.

    The actor's kernels are passed 4 times (target, forward, and backward for its kernels and its layers), the
    critic's 6 times (target; forward, backward twice; forward and backward for the actor).
    """

    def entries(params: Any) -> int:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return sum(math.prod(leaf.shape) for path, leaf in leaves if path[-1].key == "kernel")  # [K, …] of K critics

    return 2 * batch_size * (4 * entries(agent.actor["params"]) + 6 * entries(agent.critic["params"]))


def num_bytes(tree: Any) -> int:
    """Returns the bytes of a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def format_seconds(seconds: float) -> str:
    """Returns a duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_bytes(num: float) -> str:
    """Returns an amount of memory in bytes, KiB, MiB or GiB."""
    if num < 1024:
        return f"{num:,.0f} bytes"
    exponent = min(3, int(math.log2(num) // 10))
    return f"{num / 1024**exponent:,.1f} {('KiB', 'MiB', 'GiB')[exponent - 1]}"
