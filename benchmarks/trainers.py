"""Creates populations of agents as they are late in a long run, and times their steps."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.loop import Setup
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.blocks import Population, agent_keys
from ddpg_jax.population.programs import (
    Placement,
    Programs,
    choose_group_size,
    compile_programs,
    train_state_shapes,
)
from ddpg_jax.presets import PRESETS
from ddpg_jax.runs.course import CHUNK_SECONDS, MAX_CHUNK
from ddpg_jax.runs.estimates import update_flops

CASES: dict[str, Config] = {
    "keras": PRESETS["keras"],
    "keras 64-64": PRESETS["keras"].replace(hidden_sizes=(64, 64)),
    "pendulum": PRESETS["pendulum"],
    "gist": PRESETS["gist"],
    "paper": PRESETS["paper"],
}
"""The configurations that are trained, by name."""

GATHERED = 200
"""Steps whose transitions are repeated until they fill the replays."""
MANY = 1_024
"""The number of agents for which the size of a group is chosen."""
LEAST_SECONDS = 0.4
"""A repeat has enough chunks to last about this long."""


class Machine(NamedTuple):
    """The machine on which the measurements run."""

    devices: tuple[jax.Device, ...]
    group_size: int | None
    """Agents that advance together on a device; None: the command's choice for many agents."""
    measure_peak: Callable[[], float]
    """Returns GFLOP/s of all devices together."""
    peak_name: str


class Trainer(NamedTuple):
    """The compiled programs of a configuration."""

    config: Config
    setup: Setup
    programs: Programs
    compile_seconds: float


def compile_trainer(config: Config, machine: Machine) -> Trainer:
    """Compiles the programs of a configuration, without the cache of compiled programs."""
    jax.clear_caches()
    start = time.perf_counter()
    setup = make_setup(config, make(config.env_id))
    size = machine.group_size or choose_group_size(MANY, machine.devices[0].platform)
    placement = Placement(machine.devices, size)
    programs = compile_programs(
        setup,
        placement,
        max_steps=MAX_CHUNK,
        num_starts=config.eval_episodes,
        hyperparameters=jax.tree.structure(make_hyperparameters(config)),
    )
    return Trainer(config, setup, programs, time.perf_counter() - start)


@lru_cache
def trainer_of(config: Config, machine: Machine) -> Trainer:
    """Returns the same as `compile_trainer`, but compiles only once for all measurements."""
    return compile_trainer(config, machine)


def new_population(trainer: Trainer, num_agents: int, configs: Sequence[Config] = ()) -> Population:
    """Returns agents that are about to start learning, with replays full of transitions that they have gathered.

    `configs` are the configurations of a sweep's points, and each gets an equal share of the agents. Without them all
    agents have the trainer's configuration.
    """
    points = [make_hyperparameters(config) for config in configs or [trainer.config]]
    each = [points[agent * len(points) // num_agents] for agent in range(num_agents)]
    hyperparameters = jax.tree.map(lambda *values: np.asarray(values, np.float32), *each)
    population = Population(trainer.programs, agent_keys(0, np.arange(num_agents)), hyperparameters)
    gathered = min(GATHERED, trainer.setup.replay_capacity)
    # The counter of steps decides whether a step learns. These steps do not learn.
    before_learning = trainer.setup.first_update - 1 - gathered
    population.replace([state._replace(step=jnp.int32(before_learning)) for state in population.states])
    population.advance(gathered)
    for index, state in enumerate(population.states):
        rows = _repeat(state.replay.rows, gathered)
        replay = state.replay._replace(rows=rows, added=jnp.int32(rows.shape[1]))
        population.states[index] = state._replace(replay=replay)
    population.replace(population.states)
    return population


@partial(jax.jit, static_argnums=1, donate_argnums=0)
def _repeat(rows: jax.Array, num: int) -> jax.Array:
    """Returns rows [N, capacity, W] in which the first `num` are repeated until the end."""

    def write(i: jax.Array, rows: jax.Array) -> jax.Array:
        first = jnp.minimum(i * num, rows.shape[1] - num)
        return jax.lax.dynamic_update_slice_in_dim(rows, rows[:, :num], first, 1)

    return jax.lax.fori_loop(1, -(-rows.shape[1] // num), write, rows)


def seconds_of(population: Population, steps: int, chunks: int) -> float:
    """Trains `chunks` chunks of `steps` steps; returns the seconds per chunk."""
    start = time.perf_counter()
    for _ in range(chunks):
        population.advance(steps)
    return (time.perf_counter() - start) / chunks


def choose_chunk(population: Population, steps: int | None) -> tuple[int, int]:
    """Returns the steps per chunk, chosen about as the command does, and the chunks per repeat."""
    seconds_of(population, 2, 1)  # the first call is slow
    seconds = seconds_of(population, 2, 1) / 2
    length = steps or max(1, min(MAX_CHUNK, int(CHUNK_SECONDS / seconds)))
    return length, max(1, round(LEAST_SECONDS / (length * seconds)))


def flops_of(setup: Setup) -> int:
    """Floating-point operations of an update's matrix products."""
    state = train_state_shapes(setup)
    return update_flops(state.agent, setup.batch_size)


def updates_so_far(population: Population) -> int:
    """Returns the number of updates of the first agent, from its own counter."""
    return int(population.states[0].agent.step[0])
