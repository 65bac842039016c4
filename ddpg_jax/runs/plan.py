"""The plan of a run: its parts, their devices, and what they need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.loop import Setup
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.programs import Memory, Placement, compiled_memory, train_state_shapes
from ddpg_jax.processes.team import ALONE, Team
from ddpg_jax.runs.checkpoint import KEEP
from ddpg_jax.runs.course import MAX_CHUNK
from ddpg_jax.runs.estimates import available_memory, estimate_seconds, format_bytes, format_seconds, num_bytes
from ddpg_jax.runs.options import Options
from ddpg_jax.runs.placement import choose_placement, smaller_groups
from ddpg_jax.runs.sweep import Point

MAX_EVALUATIONS = 100_000
"""The largest number of evaluations in a run."""

MAX_EVAL_EPISODES = 65_536
"""The largest number of greedy episodes per agent in an evaluation: they run side by side, in memory."""

POLICY_COPIES = 6
"""Times that the run folder holds the parameters: five snapshots and the policy."""

ANNOUNCED_SECONDS = 3600.0
"""The plan of a run that is expected to take longer is printed before it starts."""


@dataclass(frozen=True)
class Part:
    """Agents whose networks and updates have the same shapes: one set of compiled programs trains them."""

    name: str
    """Name of the folder of their policies and snapshots; empty if there is only one part."""
    agents: range
    """Their numbers."""
    setup: Setup
    placement: Placement
    replay_bytes: int
    """Size of one agent's replay."""
    parameter_bytes: int
    """Size of one agent's parameters, targets and moments."""
    block: Memory
    """What a block of agents takes of the devices."""
    available_bytes: int
    """Memory for agents: a share of what is free in all processes."""
    waves: tuple[range, ...]
    """The agents' numbers, divided into waves that train one after another."""
    disk_bytes: int
    """Size of their snapshots and policies in the run folder."""
    checkpoint_bytes: int
    """Size of a checkpoint of a wave."""
    seconds: float
    """Estimate of the training time."""

    @property
    def agent_bytes(self) -> int:
        """Size of one agent's arrays."""
        return self.replay_bytes + self.parameter_bytes

    @property
    def wave_size(self) -> int:
        """The largest number of agents that train at the same time."""
        return len(self.waves[0])

    @property
    def wave_bytes(self) -> int:
        """Memory of the agents that train at the same time."""
        return self.block.states * self.placement.num_blocks(self.wave_size) + self.block.working

    @property
    def _counted(self) -> str:
        """What the estimate of the time counts: how long the step of another library's environment takes is unknown."""
        simulator = ":" in self.setup.environment.env_id
        return "an estimate without the simulator's own time" if simulator else "an estimate"

    @property
    def _working(self) -> str:
        """What of the memory is needed in addition to the states."""
        return f", of it {format_bytes(self.block.working)} while a block advances" if self.block.working else ""

    def lines(self) -> list[str]:
        """Returns memory, waves and time as text."""
        waves = f"{len(self.waves):,} wave(s) of at most {self.wave_size:,} agents"
        return [
            f"memory: {format_bytes(self.agent_bytes)} per agent (replay {format_bytes(self.replay_bytes)}, "
            f"parameters, targets and moments {format_bytes(self.parameter_bytes)})",
            f"        {format_bytes(self.agent_bytes * len(self.agents))} for {len(self.agents):,} agents; "
            f"{format_bytes(self.available_bytes)} available: {waves}, {format_bytes(self.wave_bytes)} at a time"
            f"{self._working}",
            f"time:   about {format_seconds(self.seconds)} of training ({self._counted})",
        ]


@dataclass(frozen=True)
class Plan:
    """All parts of a run."""

    points: tuple[Point, ...]
    """The configurations, in the order of their parts."""
    parts: tuple[Part, ...]

    @property
    def environment(self) -> Environment:
        """The task of all agents."""
        return self.parts[0].setup.environment

    @property
    def num_devices(self) -> int:
        """The number of devices; a part with few agents may use fewer."""
        return len(self._largest.devices)

    @property
    def _largest(self) -> Placement:
        """The placement with the most devices."""
        return max((part.placement for part in self.parts), key=lambda placement: len(placement.devices))

    @property
    def device(self) -> str:
        """The devices as text, such as "2 x cpu" or "4 x cpu in 2 processes"."""
        placement = self._largest
        where = f" in {placement.num_processes} processes" if placement.num_processes > 1 else ""
        return f"{self.num_devices} x {placement.devices[0].device_kind}{where}"

    @property
    def group_sizes(self) -> list[int]:
        """The number of agents that advance together on a device, for each part."""
        return [part.placement.group_size for part in self.parts]

    @property
    def waves(self) -> tuple[range, ...]:
        """The agents of all parts, divided into waves."""
        return tuple(wave for part in self.parts for wave in part.waves)

    @property
    def disk_bytes(self) -> int:
        """The largest size that the run folder can reach, without its tables and figures."""
        draft = max(part.checkpoint_bytes for part in self.parts)
        return sum(part.disk_bytes for part in self.parts) + (KEEP + 1) * draft

    @property
    def seconds(self) -> float:
        """Estimate of the training time."""
        return sum(part.seconds for part in self.parts)

    def part_of(self, agent: int) -> int:
        """Returns the index of an agent's part."""
        return next(index for index, part in enumerate(self.parts) if agent in part.agents)

    def lines(self) -> list[str]:
        """Returns memory, waves and time as text."""
        if len(self.parts) == 1:
            return self.parts[0].lines()
        return [
            line
            for part in self.parts
            for line in (f"agents {part.agents.start:,} to {part.agents.stop - 1:,}:", *part.lines())
        ]

    def waves_after(self, begun: tuple[range, ...]) -> tuple[range, ...]:
        """Returns all waves, of which an earlier process, perhaps with other memory, has begun the first."""
        first = begun[-1].stop
        rest = (
            wave
            for part in self.parts
            for wave in waves_of(range(max(first, part.agents.start), part.agents.stop), part.wave_size)
        )
        return (*begun, *rest)


def make_plan(options: Options, team: Team = ALONE, say: Callable[[str], None] = lambda text: None) -> Plan:
    """Divides the agents into parts that each compile once, and plans each of them.

    Points with equal setups share a part, in which their agents stand side by side. All processes make the same plan.
    On an accelerator this compiles the training program, which `say` is told before.

    Raises:
        ValueError: if this machine cannot run it.
    """
    environment = _environment(options.config)
    by_setup: dict[Setup, list[Point]] = {}
    for point in options.points:
        by_setup.setdefault(make_setup(point.config, environment), []).append(point)
    parts: list[Part] = []
    first = 0
    for setup, points in by_setup.items():
        agents = range(first, first + len(points) * options.seeds)
        name = f"part-{len(parts)}" if len(by_setup) > 1 else ""
        placement = choose_placement(
            len(agents),
            on_host=environment.outside is not None,
            devices=options.devices,
            group_size=options.group_size,
            earlier_devices=options.earlier_devices,
        )
        if placement.devices[0].platform != "cpu":
            say("compiling the training program, to see how much memory it takes")
        placements = (placement,) if options.group_size else smaller_groups(placement)
        parts.append(plan_part(points[0].config, setup, placements, agents, name=name, team=team))
        first = agents.stop
    return Plan(tuple(point for points in by_setup.values() for point in points), tuple(parts))


def plan_part(
    config: Config,
    setup: Setup,
    placements: Sequence[Placement],
    agents: range,
    *,
    name: str = "",
    team: Team = ALONE,
) -> Part:
    """Plans the agents of one setup.

    Args:
        config: of one of the agents.
        setup: of all of them.
        placements: the first of them whose block fits into the memory is taken.
        agents: their numbers.
        name: of the part.
        team: the processes of the run.

    Raises:
        ValueError: if the memory is too small for a block of any placement; it says which replay would fit.
    """
    state = train_state_shapes(setup)
    replay_bytes, parameter_bytes = num_bytes(state.replay), num_bytes(state.agent)
    saved_replay_bytes = replay_bytes * min(config.total_steps, config.replay_capacity) // config.replay_capacity
    available = available_memory(placements[0], team)
    for placement in placements:
        block = block_memory(config, setup, placement)
        if block is not None and sum(block) <= available:
            break
    else:
        raise ValueError(_too_large(config, placement, block, parameter_bytes, available))
    size = min(len(agents), int((available - block.working) // block.states) * placement.block_size)
    return Part(
        name=name,
        agents=agents,
        setup=setup,
        placement=placement,
        replay_bytes=replay_bytes,
        parameter_bytes=parameter_bytes,
        block=block,
        available_bytes=available,
        waves=waves_of(agents, size),
        disk_bytes=len(agents) * POLICY_COPIES * num_bytes((state.agent.actor["params"], state.agent.critic["params"])),
        checkpoint_bytes=size * (parameter_bytes + saved_replay_bytes),
        seconds=estimate_seconds(config, setup, placement, len(agents), state.agent),
    )


def _too_large(config: Config, placement: Placement, block: Memory | None, parameter_bytes: int, available: int) -> str:
    """Says why a block does not fit, and which replay would where that is known."""
    refused = (
        f"replay_capacity is {config.replay_capacity:,}, but {placement.block_size} agents, the fewest that train at a "
        f"time, would need "
    )
    if block is None:
        return f"{refused}more memory than a device has: a smaller replay or smaller networks may fit"
    fixed = block.working + placement.block_size * parameter_bytes
    rows = int((available - fixed) * config.replay_capacity / (sum(block) - fixed))
    fits = f"a replay_capacity of {rows:,} would fit" if rows >= config.batch_size else "no replay would fit"
    return f"{refused}{format_bytes(sum(block))} of {format_bytes(available)} available; {fits}"


def block_memory(config: Config, setup: Setup, placement: Placement) -> Memory | None:
    """Returns what a block takes: on a CPU what its arrays hold, on an accelerator what the compiler says.

    None: more than a device has.
    """
    if placement.devices[0].platform == "cpu":
        state = train_state_shapes(setup)
        return Memory(placement.block_size * (num_bytes(state.replay) + num_bytes(state.agent)), 0)
    return compiled_memory(
        setup,
        placement,
        max_steps=MAX_CHUNK,
        num_starts=config.eval_episodes,
        hyperparameters=jax.tree.structure(make_hyperparameters(config)),
    )


def waves_of(agents: range, size: int) -> tuple[range, ...]:
    """Divides the agents into waves of at most that size."""
    return tuple(range(first, min(first + size, agents.stop)) for first in range(agents.start, agents.stop, size))


def _environment(config: Config) -> Environment:
    """Returns the environment, if its evaluations are within the limits."""
    for name in ("eval_episodes", "final_episodes"):
        if getattr(config, name) > MAX_EVAL_EPISODES:
            raise ValueError(f"{name} is {getattr(config, name)}, but must be at most {MAX_EVAL_EPISODES}")
    least = -(-config.total_steps // MAX_EVALUATIONS)
    if config.eval_every < least:
        raise ValueError(
            f"eval_every is {config.eval_every}, but must be at least {least}: a run of {config.total_steps:,} steps "
            f"is evaluated at most {MAX_EVALUATIONS:,} times"
        )
    try:
        environment = make(config.env_id, config.env_args)
    except OSError as error:  # some environments download data
        raise ValueError(f"env_id is {config.env_id!r}, but must be usable here: {error}") from error
    for name in ("eval_episodes", "final_episodes"):
        if environment.optimal_returns is not None and getattr(config, name) > len(environment.optimal_returns):
            raise ValueError(
                f"{name} is {getattr(config, name)}, but must be at most {len(environment.optimal_returns)}, the start "
                f"states of evaluations of {config.env_id}"
            )
        if environment.starts is not None:
            jax.eval_shape(partial(environment.starts, getattr(config, name)))  # refuses more than there are
    return environment
