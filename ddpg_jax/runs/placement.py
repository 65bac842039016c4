"""Which devices a run uses, and how many agents advance together on each."""

import math

import jax

from ddpg_jax.population.programs import ACCELERATOR_GROUPS, Placement, choose_group_size
from ddpg_jax.processes.devices import devices_each


def choose_placement(
    num_agents: int,
    *,
    on_host: bool = False,
    devices: int | None = None,
    group_size: int | None = None,
    earlier_devices: int | None = None,
) -> Placement:
    """Returns the requested devices and group size, or those that suit the agents; every process has as many devices.

    Args:
        num_agents: of all processes, for the same programs.
        on_host: whether their environments are on the host.
        devices: the number of devices of all processes; None: `earlier_devices`, or all. On a CPU at most one per
            agent, but two if there are two, because a program for one device rounds some reports differently.
        group_size: the agents that advance together on a device; None: chosen for the agents and the device.
        earlier_devices: the number of devices of the run that is resumed.

    Raises:
        ValueError: if there are fewer devices than requested, or they cannot be divided among the processes.
    """
    of_process: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        of_process.setdefault(device.process_index, []).append(device)
    available = min(map(len, of_process.values()))
    size = group_size or choose_group_size(num_agents, jax.devices()[0].platform, on_host=on_host)
    each = devices_each(devices, earlier_devices, len(of_process)) or available
    if devices is None and size == 1:
        least = 1 if on_host else 2  # there, an agent that only fills up would be trained, too
        each = min(each, max(least, math.ceil(num_agents / len(of_process))))
    if devices is not None and each > available:
        raise ValueError(f"devices is {devices}, but must be at most {available * len(of_process)}, which there are")
    return Placement(tuple(device for some in of_process.values() for device in some[:each]), size)


def smaller_groups(placement: Placement) -> list[Placement]:
    """Returns the placement, and those with fewer agents at a time, which need less memory: the largest first."""
    smaller = [size for size in reversed(ACCELERATOR_GROUPS) if size < placement.group_size]
    return [placement, *(placement._replace(group_size=size) for size in smaller)]
