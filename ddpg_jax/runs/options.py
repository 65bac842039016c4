"""What can be asked of the command, beside the fields of the configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ddpg_jax.config import Config
from ddpg_jax.presets import PRESETS
from ddpg_jax.runs.sweep import Point


@dataclass(frozen=True)
class Options:
    """Trains independent DDPG agents in one compiled program, and leaves a run folder with curves, tables and policies.

    The defaults shown are those of the preset: `--preset keras --help` shows the tutorial's.
    """

    preset: str = "pendulum"
    """Named configuration to start from: pendulum, keras, gist, gist_corrected, paper, mountain_car or continuous."""
    seeds: int = 32
    """Number of agents, in a sweep of each point; >= 1. Seed i's key is the root key with i folded in."""
    seed: int = 0
    """Root seed; >= 0."""
    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE,...: trains every combination of the values of all --sweep, each with all seeds. A field may
    also be drawn: FIELD=loguniform:LOW,HIGH or uniform:LOW,HIGH. Sizes are given as 64x64; preset is a field, too."""
    samples: int | None = None
    """Points drawn at random from the sweeps, instead of the whole grid; >= 1."""
    out: Path | None = None
    """The run folder itself, new or empty; None: runs/<time>-<preset>-<environment>."""
    devices: int | None = None
    """Devices to spread the agents over, of all processes; >= 1. None: every usable core, or every accelerator."""
    group_size: int | None = None
    """Agents that advance together on a device; >= 1. None: chosen for the networks and the device."""
    distributed: bool = False
    """Train with several processes. Which, is told by the next three; without any, by what JAX finds of a cluster."""
    coordinator: str | None = None
    """HOST:PORT of the first process, which all others reach."""
    num_processes: int | None = None
    """Processes in all; >= 1. Without a coordinator all of them are started on this machine."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    checkpoint_every: float | None = None
    """Seconds between checkpoints; > 0. None: 60, or as many as keep their cost within 5% of the run."""
    resume: Path | None = None
    """Run folder to continue, with its own configuration; only --total-steps may then be given, to extend it."""
    checkpoint: int | None = None
    """Number of the checkpoint to resume from; None: the newest."""
    record_every: int | None = None
    """Record every so many training episodes of each agent in rollouts/; >= 1. None: record none."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where evaluations are logged besides: tensorboard (in the run folder), wandb (its own variables say where)."""
    fail_on_divergence: bool = False
    """End with status 1 if any agent's numbers are no longer finite, instead of only if all are."""
    plan: bool = False
    """Print the memory, waves and time that the run would take, and exit."""
    quiet: bool = False
    """Print nothing but errors."""
    verbose: bool = False
    """Print a line for every training episode."""
    config: tyro.conf.OmitArgPrefixes[Config] = PRESETS["pendulum"]


@dataclass(frozen=True)
class Request(Options):
    """What was asked for, with the points that it comes to."""

    points: tuple[Point, ...] = ()
    """The configurations to train, each with `seeds` agents; without a sweep it is one."""
    earlier_devices: int | None = None
    """Devices of the run that is resumed."""

    @property
    def num_agents(self) -> int:
        """Agents in all; agent a is seed a mod seeds of point a div seeds."""
        return len(self.points) * self.seeds
