"""How many agents fit into memory, and which --seeds to run where not all do."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import is_key
from ddpg_jax.config import Config
from ddpg_jax.training.devices import free_memory, usable_memory
from ddpg_jax.training.programs import Placement, Programs, train_state_shapes

USABLE_SHARE = 0.85
"""Share of the free memory that agents may fill."""

FIXED_BYTES = 900 * 2**20
"""Memory of a process without agents: Python, JAX, the compiled programs, and arrays on their way into a file."""


class Memory(NamedTuple):
    """What agents of one setup need, in bytes."""

    replay: int
    """Of one agent."""
    parameters: int
    """Of one agent: parameters, targets and the optimizers' moments."""
    block: int
    """Of a block of agents, at all times."""
    working: int
    """In addition, of the one block that is advancing."""
    available: int
    """What all devices together have for agents."""

    def needed(self, num_blocks: int) -> int:
        """Returns the bytes that so many blocks need."""
        return self.block * num_blocks + self.working

    @property
    def fitting_blocks(self) -> int:
        """The number of blocks that fit."""
        return max(0, (self.available - self.working) // self.block)


def measure(setup: Setup, placement: Placement, programs: Programs | None = None) -> Memory:
    """Returns what agents need: on a CPU what their arrays hold, on an accelerator what the compiler says.

    Args:
        setup: of the agents.
        placement: of a block.
        programs: compiled for it; needed on an accelerator, which fills up arrays to its own measures.
    """
    state = train_state_shapes(setup)
    replay, parameters = num_bytes(state.replay), num_bytes(state.agent)
    if placement.platform == "cpu" or programs is None:
        available = max(0, int(USABLE_SHARE * usable_memory()) - FIXED_BYTES)
        return Memory(replay, parameters, placement.block_size * (replay + parameters), 0, available)
    found: Any = programs.train.memory_analysis()
    num_devices, held = len(placement.devices), found.argument_size_in_bytes
    new = found.temp_size_in_bytes + max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
    available = int(USABLE_SHARE * sum(map(free_memory, placement.devices)))
    return Memory(replay, parameters, held * num_devices, new * num_devices, available)


def require_memory(memory: Memory, placement: Placement, config: Config, *, seeds: range, num_configs: int) -> None:
    """Refuses agents that do not fit, with the ranges of seeds that do.

    Args:
        memory: of the agents' setup.
        placement: of a block.
        config: of one of the agents.
        seeds: of every configuration.
        num_configs: the number of configurations that train together.

    Raises:
        ValueError: says how many agents fit, and which --seeds to run one after another or on other machines.
    """
    num_agents = num_configs * len(seeds)
    needed = memory.needed(placement.num_blocks(num_agents))
    if needed <= memory.available:
        return
    how_much = f"{format_bytes(needed)} of {format_bytes(memory.available)} available"
    fitting = memory.fitting_blocks * placement.block_size // num_configs
    if not fitting:
        least = "one agent" if num_configs == placement.block_size == 1 else "the fewest agents that train together"
        raise ValueError(
            f"replay_capacity is {config.replay_capacity:,}, but {least} would need "
            f"{format_bytes(memory.needed(placement.num_blocks(num_configs)))} of {format_bytes(memory.available)} "
            f"available: choose a smaller replay, smaller networks or fewer configurations"
        )
    starts = range(seeds.start, seeds.stop, fitting)
    ranges = [f"--seeds {first}:{min(first + fitting, seeds.stop)}" for first in starts]
    shown = ", ".join(ranges if len(ranges) <= 4 else [*ranges[:2], "…", ranges[-1]])
    raise ValueError(
        f"seeds is {seeds.start}:{seeds.stop}, but must be at most {fitting:,} at a time, because {num_agents:,} "
        f"agents need {how_much}: run {shown}, and join the folders with python -m ddpg_jax.merge"
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
