"""How many agents fit into memory, and which --seeds to run where not all do."""

import math
from typing import Any

import jax
import numpy as np

from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import is_key
from ddpg_jax.config import Config
from ddpg_jax.training.devices import free_memory, usable_memory
from ddpg_jax.training.programs import Placement, train_state_shapes

USABLE_SHARE = 0.85
"""Share of the free memory that agents may fill."""

FIXED_BYTES = 900 * 2**20
"""Memory of a process without agents: Python, JAX, the compiled programs, and arrays on their way into a file."""


def measure(setup: Setup, placement: Placement, num_agents: int) -> tuple[int, int, int, int]:
    """Returns bytes: of one agent's replay, of its parameters, targets and moments, of all agents, and available ones.

    Blocks are always full, so copies that fill up the last one count.
    """
    state = train_state_shapes(setup)
    replay, parameters = num_bytes(state.replay), num_bytes(state.agent)
    needed = placement.num_blocks(num_agents) * placement.block_size * (replay + parameters)
    if placement.platform == "cpu":
        return replay, parameters, needed, max(0, int(USABLE_SHARE * usable_memory()) - FIXED_BYTES)
    return replay, parameters, needed, int(USABLE_SHARE * sum(map(free_memory, placement.devices)))


def require_memory(setup: Setup, placement: Placement, config: Config, *, seeds: range, num_configs: int) -> None:
    """Refuses agents that do not fit, with the ranges of seeds that do.

    Args:
        setup: of the agents.
        placement: of a block.
        config: of one of the agents.
        seeds: of every configuration.
        num_configs: the number of configurations that train together.

    Raises:
        ValueError: says how many agents fit, and which --seeds to run one after another or on other machines.
    """
    num_agents = num_configs * len(seeds)
    replay, parameters, needed, available = measure(setup, placement, num_agents)
    if needed <= available:
        return
    block = placement.block_size * (replay + parameters)
    fitting = available // block * placement.block_size // num_configs
    if not fitting:
        least = "one agent" if num_configs == placement.block_size == 1 else "the fewest agents that train together"
        raise ValueError(
            f"replay_capacity is {config.replay_capacity:,}, but {least} would need "
            f"{format_bytes(placement.num_blocks(num_configs) * block)} of {format_bytes(available)} available: choose "
            f"a smaller replay, smaller networks or fewer configurations"
        )
    starts = range(seeds.start, seeds.stop, fitting)
    ranges = [f"--seeds {first}:{min(first + fitting, seeds.stop)}" for first in starts]
    shown = ", ".join(ranges if len(ranges) <= 4 else [*ranges[:2], "…", ranges[-1]])
    raise ValueError(
        f"seeds is {seeds.start}:{seeds.stop}, but must be at most {fitting:,} at a time, because {num_agents:,} "
        f"agents need {format_bytes(needed)} of {format_bytes(available)} available: run {shown}, and join the folders "
        f"with python -m ddpg_jax.merge"
    )


def num_bytes(tree: Any) -> int:
    """Returns the bytes of a tree of arrays or shapes."""
    leaves = [jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def format_bytes(num: float) -> str:
    """Returns an amount of memory in bytes, KiB, MiB or GiB."""
    if num < 1024:
        return f"{num:,.0f} bytes"
    exponent = min(3, int(math.log2(num) // 10))
    return f"{num / 1024**exponent:,.1f} {('KiB', 'MiB', 'GiB')[exponent - 1]}"
