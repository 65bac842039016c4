"""What a run comes to before anything is compiled: its parts, where they go, and what they take."""

from dataclasses import dataclass

import jax

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.training import Setup
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_setup
from ddpg_jax.population.programs import Placement, choose_group_size
from ddpg_jax.processes.devices import devices_each
from ddpg_jax.processes.team import ALONE, Team
from ddpg_jax.runs.checkpoint import KEEP
from ddpg_jax.runs.options import Request
from ddpg_jax.runs.plan import Plan, make_plan, portions
from ddpg_jax.runs.session import Part
from ddpg_jax.runs.sweep import Point

MAX_EVALUATIONS = 100_000
"""Evaluations of a run, at most."""

MAX_EVAL_EPISODES = 65_536
"""Greedy episodes of an agent in an evaluation, at most: they run side by side, in memory."""


@dataclass(frozen=True)
class Design:
    """The parts of a run."""

    points: tuple[Point, ...]
    """In the order of their parts."""
    parts: tuple[Part, ...]
    plans: tuple[Plan, ...]
    """Of each part."""

    @property
    def environment(self) -> Environment:
        """The task of all agents."""
        return self.parts[0].setup.environment

    @property
    def num_devices(self) -> int:
        """Devices that the agents are spread over."""
        return len(self.parts[0].placement.devices)

    @property
    def device(self) -> str:
        """Such as "2 x cpu", or "4 x cpu in 2 processes"."""
        placement = self.parts[0].placement
        where = f" in {placement.num_processes} processes" if placement.num_processes > 1 else ""
        return f"{self.num_devices} x {placement.devices[0].device_kind}{where}"

    @property
    def group_sizes(self) -> list[int]:
        """Agents that advance together on a device, in each part."""
        return [part.placement.group_size for part in self.parts]

    @property
    def waves(self) -> tuple[range, ...]:
        """The agents in portions that train one after another."""
        return tuple(wave for plan in self.plans for wave in plan.waves)

    @property
    def disk_bytes(self) -> int:
        """What the run folder may take."""
        draft = max(plan.checkpoint_bytes for plan in self.plans)
        return sum(plan.disk_bytes for plan in self.plans) + (KEEP + 1) * draft

    @property
    def seconds(self) -> float:
        """Estimate of the training time."""
        return sum(plan.seconds for plan in self.plans)

    def lines(self) -> list[str]:
        """Memory, waves and time in words."""
        if len(self.plans) == 1:
            return self.plans[0].lines()
        return [
            line
            for plan in self.plans
            for line in (f"agents {plan.agents.start:,} to {plan.agents.stop - 1:,}:", *plan.lines())
        ]

    def waves_after(self, begun: tuple[range, ...]) -> tuple[range, ...]:
        """All waves, of which an earlier process, whose memory may have been another, has begun the first."""
        first = begun[-1].stop
        rest = (
            wave
            for plan in self.plans
            for wave in portions(range(max(first, plan.agents.start), plan.agents.stop), plan.wave_size)
        )
        return (*begun, *rest)


def make_design(request: Request, team: Team = ALONE) -> Design:
    """What was asked for, as parts that each compile once.

    Points whose fields differ in nothing that a program is compiled from share one; they are put side by side. Every
    process of the team comes to the same design.

    Raises:
        ValueError: if it cannot be carried out here.
    """
    environment = _environment(request)
    by_setup: dict[Setup, list[Point]] = {}
    for point in request.points:
        by_setup.setdefault(make_setup(point.config, environment), []).append(point)
    parts: list[Part] = []
    plans: list[Plan] = []
    first = 0
    for setup, points in by_setup.items():
        agents = range(first, first + len(points) * request.seeds)
        part = Part(f"part-{len(parts)}" if len(by_setup) > 1 else "", agents, setup, place(setup, request))
        parts.append(part)
        plans.append(make_plan(points[0].config, setup, part.placement, agents, team))
        first = agents.stop
    ordered = tuple(point for points in by_setup.values() for point in points)
    return Design(ordered, tuple(parts), tuple(plans))


def _environment(request: Request) -> Environment:
    config = request.config
    if config.eval_episodes > MAX_EVAL_EPISODES:
        raise ValueError(f"eval_episodes is {config.eval_episodes}, but must be at most {MAX_EVAL_EPISODES}")
    least = -(-config.total_steps // MAX_EVALUATIONS)
    if config.eval_every < least:
        raise ValueError(
            f"eval_every is {config.eval_every}, but must be at least {least}: a run of {config.total_steps:,} steps "
            f"is evaluated at most {MAX_EVALUATIONS:,} times"
        )
    try:
        environment = make(config.env_id)
    except OSError as error:  # some of gymnax's environments download data
        raise ValueError(f"env_id is {config.env_id!r}, but must be usable here: {error}") from error
    environment.evaluation_starts(config.eval_episodes)  # refuses more than there are
    return environment


def place(setup: Setup, request: Request) -> Placement:
    """The devices and the group size that are asked for, or that suit the networks; of all processes as many."""
    of_process: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        of_process.setdefault(device.process_index, []).append(device)
    available = min(map(len, of_process.values()))
    each = devices_each(request.devices, request.earlier_devices, len(of_process)) or available
    if request.devices is not None and each > available:
        raise ValueError(f"devices is {request.devices}, but there are {available * len(of_process)}")
    devices = tuple(device for some in of_process.values() for device in some[:each])
    return Placement(devices, request.group_size or choose_group_size(setup, devices[0].platform))
