"""Compiled programs that advance many agents, a block of them in each call.

A *block* is a group of agents on every device: the devices form a mesh with one axis, `agents`, and a group advances
together under `vmap`. The programs are compiled for one block, and the host calls them for one block after another. So
for a given size of groups, neither the programs nor a single bit of an agent's result depend on the number of agents.
The last block is filled up with copies that are thrown away.

Where several processes train together, the mesh has the devices of all of them. Each calls the same programs for its
part of the same blocks; the programs contain no communication.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout, with_layout_constraint
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddpg_jax.algorithm import evaluation, loop, outside
from ddpg_jax.algorithm.loop import Setup
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, Replay, TrainState
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_hyperparameters
from ddpg_jax.population.compiler import compiled

_OWN: Any = 0
_SHARED: Any = None


def _stacked(setup: Setup) -> TrainState:
    """Returns the axis of the agents in a block's state. They advance in step, so they share counters.

    The counter of updates is shared where it decides what an update does, so that this is a branch also in a group.
    """
    agent = _OWN if setup.algorithm.policy_delay == 1 else AgentState(*(_OWN,) * 6, step=_SHARED, average_actor=_OWN)
    return TrainState(
        agent=agent,
        replay=Replay(rows=_OWN, added=_SHARED),
        noise=_OWN,
        environment=_OWN,
        observation=_OWN,
        episode=_OWN,
        key=_OWN,
        step=_SHARED,
    )


HOST_GROUP = 4
"""Group size on a CPU with environments on the host."""

ACCELERATOR_GROUPS = (32, 256)
"""Group sizes on an accelerator; few of them, because an agent's last digits depend on the size of its group."""


LANES = 128
"""Numbers on which a TPU works side by side, and to a multiple of which it fills up the fastest axis of an array."""

AGENTS_FASTEST = Layout(major_to_minor=(1, 2, 0))
"""The replay [n, C, F] of a group in a TPU's memory, such that a row of all agents lies together.

The loops use this layout where agents fill the lanes. Carried between calls in another one, the whole replay would be
copied twice in each call (measured: `benchmarks/README.md`).
"""

ROWS_FASTEST = Layout(major_to_minor=(0, 2, 1))
"""The replay [n, C, F] of a group in a TPU's memory, such that the same number of all rows of an agent lies together.

The loop that learns uses this layout where agents do not fill the lanes. The loop that only gathers would use the other
one, so that the replay would be copied between them; it is held to this one (`hold_rows_fastest`).
"""

LEAST_HELD = 8 * 2**20
"""Bytes of a group's replay from which it is held to an order.

A TPU moves a smaller one into its fast memory for a call. Held to an order outside of it, it would be moved there in
every step (seen with `pendulum` and 32 agents, 6.6 MiB).
"""


class Placement(NamedTuple):
    """The devices of a block, and the number of agents on each."""

    devices: tuple[jax.Device, ...]
    """The devices of all processes, equally many of each."""
    group_size: int
    """Agents that advance together on a device."""

    @property
    def block_size(self) -> int:
        """The number of agents in a block."""
        return len(self.devices) * self.group_size

    @property
    def num_processes(self) -> int:
        """The number of processes to which the devices belong."""
        return len({device.process_index for device in self.devices})

    @property
    def local_block_size(self) -> int:
        """The number of a block's agents that one process holds."""
        return self.block_size // self.num_processes

    def num_blocks(self, num_agents: int) -> int:
        """Returns the number of blocks that hold so many agents."""
        return math.ceil(num_agents / self.block_size)


def choose_group_size(num_agents: int, platform: str, *, on_host: bool = False) -> int:
    """Returns how many of a device's agents advance together; `on_host` tells where their environments are.

    On a CPU each advances on its own: batched arithmetic gains little or nothing there, and few agents would pay for
    copies that fill up the group (measured: `benchmarks/README.md`). It also gives every agent the same bits on any
    number of devices. An accelerator needs much work at once, but 32 agents need not pay for 256. With
    environments on the host there is a call per step and block, so that groups pay on a CPU, too.
    """
    if platform == "cpu":
        return HOST_GROUP if on_host and num_agents > 1 else 1
    return next((size for size in ACCELERATOR_GROUPS if num_agents <= size), ACCELERATOR_GROUPS[-1])


def train_state_shapes(setup: Setup) -> TrainState:
    """Returns the shapes and dtypes of an agent's training state."""
    return jax.eval_shape(
        lambda scalars: loop.init(jax.random.key(0), scalars, setup=setup), _hyperparameter_shapes(PLAIN)
    )


PLAIN = jax.tree.structure(make_hyperparameters(Config()))
"""The tree of hyperparameters of an agent without switches."""


def _hyperparameter_shapes(tree: Any, *shape: int) -> Hyperparameters:
    """Returns a tree of hyperparameters with arrays of the given shape."""
    return jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(shape, jnp.float32)] * tree.num_leaves)


class Programs(NamedTuple):
    """The compiled programs of a block of n agents; those that advance the states take over (donate) them."""

    placement: Placement
    stacked: NamedSharding
    """The sharding of an array with a leading axis of n agents."""
    shared: NamedSharding
    """The sharding of an array that all agents share."""
    states: Any
    """Where the arrays of a training state lie, and how if that is not for the device to choose: a tree."""
    init: Callable[[jax.Array, Hyperparameters], TrainState]
    """(data of keys [n, ...], hyperparameters [n]) -> states [n]."""
    train: Callable[..., Any]
    """(states [n], hyperparameters [n], numbers of steps [devices]) -> states [n], logs [n, max_steps, fields of
    `StepLog`]. A device whose agents only fill up the block is given 0 steps.
    For environments on the host: (states [n], results [n, E, 2 O + 3], hyperparameters [n]) -> states [n], actions
    [n, E, A], rows of the logs [n, fields of `StepLog`] (`outside.step`)."""
    evaluate: Callable[[AgentState, Any], Any]
    """(agents [n], start states [S]) -> greedy episodes [n, S]; for environments on the host (agents [n], observations
    [n, S, O]) -> actions [n, S, A]."""
    begin: Callable[..., Any] | None = None
    """For environments on the host: (states [n], observations [n, ...], hyperparameters [n]) -> states [n], actions
    [n, E, A] (`outside.begin`)."""


class Function(NamedTuple):
    """A function of one agent, to be compiled for a block of them."""

    function: Callable
    in_axes: tuple
    """The axis of the agents in each argument, as in `vmap`."""
    out_axes: Any
    arguments: tuple
    """The shapes of a block's arguments."""
    donated: tuple[int, ...] = ()
    """The arguments that it takes over."""
    per_device: tuple[int, ...] = ()
    """The arguments that each device has for itself, as arrays [devices]; `in_axes` has None for them."""


def compile_programs(
    setup: Setup, placement: Placement, *, max_steps: int, num_starts: int, hyperparameters: Any = PLAIN
) -> Programs:
    """Compiles the programs of a run ahead of time.

    Args:
        setup: of every agent.
        placement: of a block.
        max_steps: the largest number of steps in a call of `train`.
        num_starts: S, the number of start states in a call of `evaluate`.
        hyperparameters: the structure (`jax.tree.structure`) of the tree of hyperparameters.
    """
    lowered = lower_programs(
        setup, placement, max_steps=max_steps, num_starts=num_starts, hyperparameters=hyperparameters
    )
    compile_one = _compiler_for(setup, placement)
    with ThreadPoolExecutor() as pool:  # XLA compiles without holding the interpreter
        programs = dict(zip(lowered, pool.map(compile_one, lowered.values()), strict=True))
    shardings = _shardings_over(_mesh(placement))
    own_states = _laid_out(_shardings(_stacked(setup), shardings), replay_layout(setup, placement))
    return Programs(placement, shardings[_OWN], shardings[_SHARED], own_states, **programs)


def _compiler_for(setup: Setup, placement: Placement) -> Callable[[jax.stages.Lowered], jax.stages.Compiled]:
    agent = train_state_shapes(setup).agent
    params = agent.actor["params"], agent.critic["params"]
    return partial(compiled, platform=placement.devices[0].platform, params=params)


def lower_programs(
    setup: Setup, placement: Placement, *, max_steps: int, num_starts: int, hyperparameters: Any = PLAIN
) -> dict[str, jax.stages.Lowered]:
    """Returns the programs of a run by the names of `Programs`, before XLA has compiled them (see there)."""
    layout = replay_layout(setup, placement)
    if layout == ROWS_FASTEST:
        setup = replace(setup, hold=hold_rows_fastest)
    mesh, n, axes = _mesh(placement), placement.block_size, _stacked(setup)
    scalars = _hyperparameter_shapes(hyperparameters, n)
    keys = jax.eval_shape(lambda: jax.random.key_data(jax.random.split(jax.random.key(0), n)))

    def initialize(key_data: jax.Array, hyperparameters: Hyperparameters) -> TrainState:
        return loop.init(jax.random.wrap_key_data(key_data), hyperparameters, setup=setup)

    init = Function(initialize, (0, 0), axes, (keys, scalars))
    states = jax.eval_shape(_over_block(init, mesh, placement), keys, scalars)
    if setup.environment.outside is None:
        num_devices = len(placement.devices)
        rest = _inside(setup, states, scalars, max_steps=max_steps, num_starts=num_starts, num_devices=num_devices)
    else:
        rest = _outside(setup, states, scalars, num_starts=num_starts)
    return {name: _lower(each, mesh, placement, layout) for name, each in {"init": init, **rest}.items()}


class Memory(NamedTuple):
    """What a block of agents takes of all devices together, in bytes."""

    states: int
    """For its training states, at all times."""
    working: int
    """In addition while it advances; one block does so at a time."""


@cache
def compiled_memory(
    setup: Setup, placement: Placement, *, max_steps: int, num_starts: int, hyperparameters: Any = PLAIN
) -> Memory | None:
    """Returns what the compiled training program takes (see `compile_programs` for the arguments).

    An accelerator fills up arrays to its own measures and keeps intermediate results, so that this can be several times
    what the arrays hold. None: it is more than a device has, and a TPU's compiler refuses such a program.
    """
    lowered = lower_programs(
        setup, placement, max_steps=max_steps, num_starts=num_starts, hyperparameters=hyperparameters
    )
    try:
        found: Any = _compiler_for(setup, placement)(lowered["train"]).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    held = found.argument_size_in_bytes
    new = found.temp_size_in_bytes + max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
    working = max(new, found.peak_memory_in_bytes - held)
    return Memory(held * len(placement.devices), working * len(placement.devices))


def _lower(each: Function, mesh: Mesh, placement: Placement, layout: Layout | None) -> jax.stages.Lowered:
    """Returns the program of a function for a block."""
    shardings = _shardings_over(mesh)
    return jax.jit(
        _over_block(each, mesh, placement),
        in_shardings=_laid_out(_shardings(_divided(each), shardings), layout),
        out_shardings=_laid_out(_shardings(each.out_axes, shardings), layout),
        donate_argnums=each.donated,
    ).lower(*each.arguments)


def _mesh(placement: Placement) -> Mesh:
    return Mesh(np.asarray(placement.devices), ("agents",))


def _shardings_over(mesh: Mesh) -> dict[int | None, NamedSharding]:
    """Returns how arrays with an axis of agents, and those without, lie on the devices."""
    return {axis: NamedSharding(mesh, _spec(axis)) for axis in (_OWN, _SHARED)}


def _laid_out(shardings: Any, layout: Layout | None) -> Any:
    """Returns the shardings of a program's values, with the layout of the replay where a training state is one."""

    def with_layout(tree: Any) -> Any:
        if layout is None or not isinstance(tree, TrainState):
            return tree
        replay: Any = tree.replay
        return tree._replace(replay=replay._replace(rows=Format(layout, replay.rows)))

    return jax.tree.map(with_layout, shardings, is_leaf=lambda tree: isinstance(tree, TrainState))


def replay_layout(setup: Setup, placement: Placement) -> Layout | None:
    """Returns how the replay of a group lies in a device's memory; None: as the device chooses."""
    if placement.devices[0].platform != "tpu":
        return None
    if placement.group_size % LANES == 0:
        return AGENTS_FASTEST
    rows: Any = train_state_shapes(setup).replay.rows
    return ROWS_FASTEST if placement.group_size * rows.size * rows.dtype.itemsize >= LEAST_HELD else None


def hold_rows_fastest(rows: jax.Array) -> jax.Array:
    """Returns the rows [C, F] of an agent's replay, held to `ROWS_FASTEST` in the compiled program."""
    return with_layout_constraint(rows, Layout(major_to_minor=(1, 0)))  # `vmap` puts the axis of the agents in front


def _inside(
    setup: Setup, states: TrainState, scalars: Hyperparameters, *, max_steps: int, num_starts: int, num_devices: int
) -> dict[str, Function]:
    """Returns what is compiled where the environment is a part of the programs."""
    axes = _stacked(setup)
    train = partial(loop.train, setup=setup, max_steps=max_steps)
    evaluate = partial(evaluation.greedy_episodes, environment=setup.environment, algorithm=setup.algorithm)
    starts = jax.eval_shape(lambda: setup.environment.evaluation_starts(num_starts))
    steps = jax.ShapeDtypeStruct((num_devices,), jnp.int32)
    return {
        "train": Function(train, (axes, 0, None), (axes, 0), (states, scalars, steps), donated=(0,), per_device=(2,)),
        "evaluate": Function(evaluate, (axes.agent, None), 0, (states.agent, starts)),
    }


def _outside(setup: Setup, states: TrainState, scalars: Hyperparameters, *, num_starts: int) -> dict[str, Function]:
    """Returns what is compiled where the environments are on the host: one call per step."""
    axes, n, size = _stacked(setup), states.observation.shape[0], setup.environment.observation_size
    received = jax.ShapeDtypeStruct((n, setup.num_envs, 2 * size + 3), jnp.float32)
    seen = jax.ShapeDtypeStruct((n, num_starts, size), jnp.float32)
    begin = partial(outside.begin, setup=setup)
    train = partial(outside.step, setup=setup)
    act = partial(outside.act, algorithm=setup.algorithm)
    return {
        "begin": Function(begin, (axes, 0, 0), (axes, 0), (states, states.observation, scalars), donated=(0,)),
        "train": Function(train, (axes, 0, 0), (axes, 0, 0), (states, received, scalars), donated=(0,)),
        "evaluate": Function(act, (axes.agent, 0), 0, (states.agent, seen)),
    }


def _over_block(each: Function, mesh: Mesh, placement: Placement) -> Callable:
    """Returns the function of a block of agents, a group on every device."""
    grouped = _over_group(each.function, each.in_axes, each.out_axes, placement.group_size)

    def on_device(*arguments: Any) -> Any:
        return grouped(*(x[0] if i in each.per_device else x for i, x in enumerate(arguments)))

    specs = _specs(_divided(each)), _specs(each.out_axes)
    return jax.shard_map(on_device, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)


def _divided(each: Function) -> tuple:
    """Returns the axis along which each argument is divided among the devices, as in `vmap`."""
    return tuple(_OWN if i in each.per_device else axis for i, axis in enumerate(each.in_axes))


def _over_group(function: Callable, in_axes: tuple, out_axes: Any, group_size: int) -> Callable:
    """Turns a function of one agent into that of a group; a group of one needs no batched arithmetic (saves 6%)."""
    if group_size > 1:
        return jax.vmap(function, in_axes, out_axes)

    def alone(*arguments: Any) -> Any:
        result = function(*(_each(axis, tree, lambda x: x[0]) for axis, tree in zip(in_axes, arguments, strict=True)))
        return _each(out_axes, result, lambda x: x[None])

    return alone


def _each(axes: Any, tree: Any, change: Callable[[jax.Array], jax.Array]) -> Any:
    """Changes the arrays of a tree that have an axis of agents; `axes` is a prefix of the tree, as in `vmap`."""
    parts = jax.tree.broadcast(axes, tree, is_leaf=lambda axis: axis is None)
    return jax.tree.map(lambda axis, x: x if axis is None else change(x), parts, tree, is_leaf=lambda x: x is None)


def _specs(axes: Any) -> Any:
    """Returns the partition of arrays with an axis of agents over the mesh; arrays without one are replicated."""
    return jax.tree.map(_spec, axes, is_leaf=lambda axis: axis is None)


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec("agents")


def _shardings(axes: Any, shardings: dict[int | None, NamedSharding]) -> Any:
    return jax.tree.map(lambda axis: shardings[axis], axes, is_leaf=lambda axis: axis is None)
