"""Before anything is allocated: what a run will take, and whether it fits."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import training
from ddpg_jax.algorithm.training import Setup
from ddpg_jax.config import Config
from ddpg_jax.population.programs import EXAMPLE_HYPERPARAMETERS, Placement
from ddpg_jax.processes.devices import usable_memory
from ddpg_jax.processes.team import ALONE, Team, processes_on_this_host

USABLE_SHARE = 0.85
"""Share of the free memory that a run plans to fill."""

FIXED_BYTES = 900 * 2**20
"""What Python, JAX, the compiled programs, and a portion of agents on its way into a file take besides the agents."""

WEIGHT_FILES = 6
"""Times that the run folder holds parameters: five moments of training, and the policy."""

ANNOUNCED_SECONDS = 3600.0
"""A run that is expected to take longer is announced with its plan."""

_CPU_FLOPS = 110e9
"""Float32 operations per second of a core on these matrix products, for the estimate of the time alone."""
_CPU_STEP_SECONDS = 45e-6
"""Cost of a step besides its matrix products, likewise."""
_ACCELERATOR_STEP_SECONDS = 400e-6
"""Cost of a step of a whole group on an accelerator, likewise: launching its kernels."""


@dataclass(frozen=True)
class Plan:
    """Memory, waves and time of a part of a run: of agents whose networks and updates have the same shapes."""

    agents: range
    """Their numbers."""
    replay_bytes: int
    """Of an agent; so is the next one."""
    parameter_bytes: int
    """Parameters, targets and moments."""
    available_bytes: int
    """Memory for agents: a share of what is free, of all processes."""
    waves: tuple[range, ...]
    """The agents' numbers, in portions that train one after another."""
    disk_bytes: int
    """What they may take in the run folder: parameters at several moments and policies."""
    checkpoint_bytes: int
    """What a checkpoint of theirs takes."""
    seconds: float
    """Estimate of the training time."""

    @property
    def agent_bytes(self) -> int:
        """Memory that an agent takes."""
        return self.replay_bytes + self.parameter_bytes

    @property
    def wave_bytes(self) -> int:
        """Memory that the agents take at any time."""
        return self.agent_bytes * max(len(wave) for wave in self.waves)

    @property
    def wave_size(self) -> int:
        """The most agents that train at a time."""
        return len(self.waves[0])

    def lines(self) -> list[str]:
        """The plan in words."""
        portions = f"{len(self.waves):,} wave(s) of at most {self.wave_size:,} agents"
        return [
            f"memory: {_amount(self.agent_bytes)} an agent (replay {_amount(self.replay_bytes)}, parameters, targets "
            f"and moments {_amount(self.parameter_bytes)})",
            f"        {_amount(self.agent_bytes * len(self.agents))} for {len(self.agents):,} agents; "
            f"{_amount(self.available_bytes)} available: {portions}, {_amount(self.wave_bytes)} at a time",
            f"time:   about {duration(self.seconds)} of training (an estimate)",
        ]


def make_plan(config: Config, setup: Setup, placement: Placement, agents: range, team: Team = ALONE) -> Plan:
    """What these agents will take.

    Raises:
        ValueError: if not even one block of agents fits; it says what would.
    """
    state = jax.eval_shape(partial(training.init, setup=setup), jax.random.key(0), EXAMPLE_HYPERPARAMETERS)
    replay_bytes, parameter_bytes = num_bytes(state.replay), num_bytes(state.agent)
    saved_replay_bytes = replay_bytes * min(config.total_steps, config.replay_capacity) // config.replay_capacity
    available = available_memory(placement, team)
    agent_bytes = replay_bytes + parameter_bytes
    block = placement.block_size
    if block * agent_bytes > available:
        rows = int((available / block - parameter_bytes) * config.replay_capacity / replay_bytes)
        fits = f"a replay_capacity of {rows:,} would fit" if rows >= config.batch_size else "no replay would fit"
        raise ValueError(
            f"replay_capacity is {config.replay_capacity:,}, but {block} agents, the fewest that train at a time, "
            f"would take {_amount(block * agent_bytes)} of {_amount(available)} available; {fits}"
        )
    size = min(len(agents), int(available // (block * agent_bytes)) * block)
    return Plan(
        agents=agents,
        replay_bytes=replay_bytes,
        parameter_bytes=parameter_bytes,
        available_bytes=available,
        waves=portions(agents, size),
        disk_bytes=len(agents) * WEIGHT_FILES * num_bytes((state.agent.actor_params, state.agent.critic_params)),
        checkpoint_bytes=size * (parameter_bytes + saved_replay_bytes),
        seconds=estimate_seconds(config, setup, placement, len(agents), state.agent),
    )


def portions(agents: range, size: int) -> tuple[range, ...]:
    """The agents in portions of at most that size."""
    return tuple(range(first, min(first + size, agents.stop)) for first in range(agents.start, agents.stop, size))


def available_memory(placement: Placement, team: Team = ALONE) -> int:
    """Bytes for agents on the devices of a placement; every process counts for as much as the one with the least."""
    if placement.devices[0].platform == "cpu":
        own = int(USABLE_SHARE * usable_memory() / processes_on_this_host(team)) - FIXED_BYTES
    else:
        free = [device.memory_stats() or {} for device in placement.devices if device.process_index == team.index]
        own = int(USABLE_SHARE * sum(stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0) for stats in free))
    return team.size * max(0, min(team.gather(own)))


def estimate_seconds(config: Config, setup: Setup, placement: Placement, num_agents: int, agent: Any) -> float:
    """A rough guess of the training time, from the arithmetic of the updates and the cost of a step."""
    flops = config.num_updates(config.total_steps) * update_flops(agent, setup.batch_size)
    if placement.devices[0].platform != "cpu":
        return config.total_steps * _ACCELERATOR_STEP_SECONDS * placement.num_blocks(num_agents)
    agents_per_core = placement.num_blocks(num_agents) * placement.group_size
    return agents_per_core * (flops / _CPU_FLOPS + config.total_steps * _CPU_STEP_SECONDS)


def update_flops(agent: Any, batch_size: int) -> int:
    """Floating-point operations of the matrix products of an update: two a weight, a transition and a pass.

    The actor's weights are passed 4 times (target, forward, and backward for its weights and its layers), the
    critic's 6 times (target; forward, backward twice; forward and backward for the actor).
    """

    def weights(params: Any) -> int:
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params) if len(leaf.shape) == 2)

    return 2 * batch_size * (4 * weights(agent.actor_params) + 6 * weights(agent.critic_params))


def num_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def duration(seconds: float) -> str:
    """A time that a person can read."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _amount(num: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num < 1024 or unit == "GiB":
            return f"{num:,.0f} {unit}" if unit == "bytes" else f"{num:,.1f} {unit}"
        num /= 1024
    raise AssertionError("unreachable")
