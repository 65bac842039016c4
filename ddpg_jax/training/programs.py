"""The compiled programs that advance a block of agents.

A *block* is a group of agents on every device: the devices form a mesh with one axis, `agents`, and a group advances
together under `vmap`. The programs are compiled for one block and called for one block after another. So for a given
group size, neither the programs nor a single bit of an agent's result depend on the number of agents. The last block is
filled up with copies that are thrown away.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddpg_jax.algorithm import evaluation, host_env, loop
from ddpg_jax.algorithm.evaluation import Starts
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, NoiseProcess, Replay, TrainState
from ddpg_jax.training.compiler import compile_lowered

MAX_CHUNK = 250
"""The largest number of steps of the training loop in one call of the program."""

HOST_GROUP = 4
"""Group size on a CPU where environments step on the host."""

ACCELERATOR_GROUPS = (32, 256)
"""Group sizes on an accelerator; few of them, because an agent's last digits depend on the size of its group."""

_STACKED: Any = 0
_SHARED: Any = None


class Placement(NamedTuple):
    """The devices of a block, and the number of agents on each."""

    devices: tuple[jax.Device, ...]
    group_size: int
    """Agents that advance together on a device."""

    @property
    def block_size(self) -> int:
        """The number of agents in a block."""
        return len(self.devices) * self.group_size

    @property
    def platform(self) -> str:
        """JAX's name of the devices' kind: "cpu", "gpu" or "tpu"."""
        return str(self.devices[0].platform)

    def num_blocks(self, num_agents: int) -> int:
        """Returns how many blocks the agents fill."""
        return math.ceil(num_agents / self.block_size)

    def __str__(self) -> str:
        return f"{len(self.devices)} x {self.devices[0].device_kind}"


def choose_placement(
    num_agents: int, *, on_host: bool = False, devices: int | None = None, group_size: int | None = None
) -> Placement:
    """Returns the requested devices and group size, or those that suit the agents.

    On a CPU each agent advances on its own: batched arithmetic gains little there, and few agents would pay for copies
    that fill up a group. So an agent has the same bits on any number of devices. An accelerator needs much work at
    once, but 32 agents need not pay for 256. With environments on the host there is a call per step and block, so
    groups pay on a CPU, too.

    Args:
        num_agents: of the same programs.
        on_host: whether their environments step on the host.
        devices: the number of devices; default: all, on a CPU at most one per agent (but two if there are two,
            because a program for one device rounds some reports differently).
        group_size: the agents that advance together on a device; default: chosen for the agents and the device.

    Raises:
        ValueError: if there are fewer devices than requested.
    """
    available = sorted(jax.devices(), key=lambda device: device.id)
    if devices is not None and devices > len(available):
        raise ValueError(f"devices is {devices}, but only {len(available)} are available")
    if group_size is None and available[0].platform == "cpu":
        group_size = HOST_GROUP if on_host and num_agents > 1 else 1
    if group_size is None:
        group_size = next((size for size in ACCELERATOR_GROUPS if num_agents <= size), ACCELERATOR_GROUPS[-1])
    if devices is None and group_size == 1:
        devices = max(1 if on_host else 2, num_agents)  # on the host a copy that fills up would be trained as well
    return Placement(tuple(available[:devices]), group_size)


class Programs(NamedTuple):
    """The compiled programs of a block of n agents; those that advance states take them over (donate them)."""

    placement: Placement
    stacked: NamedSharding
    """Of an array with a leading axis of n agents."""
    shared: NamedSharding
    """Of an array that all agents share."""
    states: TrainState
    """The shardings of a training state's arrays, a prefix of its tree."""
    init: Callable[[jax.Array, Hyperparameters], TrainState]
    """(data of keys [n, ...], hyperparameters [n]) -> states [n]."""
    train: Any
    """(states [n], hyperparameters [n], numbers of steps [devices]) -> states [n], logs [n, MAX_CHUNK, F]
    (`loop.unpack_log`). A device whose agents only fill up the block is given 0 steps. With environments on the host:
    (states [n], results [n, E, 2 O + 3], hyperparameters [n]) -> states [n], actions [n, E, A], rows [n, F]
    (`host_env.step`)."""
    evaluate: Callable[..., Any]
    """(agents [n], starts [S]) -> greedy episodes [n, S]. With environments on the host: (agents [n], observations
    [n, S, O]) -> actions [n, S, A]."""
    begin: Callable[..., Any] | None = None
    """With environments on the host: (states [n], observations [n, ...], hyperparameters [n]) -> states [n], actions
    [n, E, A] (`host_env.begin`)."""


class _Function(NamedTuple):
    """A function of one agent, to be compiled for a block of them."""

    function: Callable[..., Any]
    in_axes: tuple
    """The axis of the agents in each argument, as in `vmap`."""
    out_axes: Any
    arguments: tuple
    """The shapes of a block's arguments."""
    donated: tuple[int, ...] = ()
    per_device: tuple[int, ...] = ()
    """The arguments that each device has for itself, arrays [devices]; `in_axes` has None for them."""


def compile_programs(setup: Setup, placement: Placement, *, starts: Starts, hyperparameters: Any) -> Programs:
    """Compiles the programs of a block ahead of time.

    Args:
        setup: of every agent.
        placement: of a block.
        starts: S start states, as `evaluate` will be given; only shapes matter.
        hyperparameters: the structure (`jax.tree.structure`) of the tree of hyperparameters.
    """
    lowered = lower_programs(setup, placement, starts=starts, hyperparameters=hyperparameters)
    agent = train_state_shapes(setup).agent
    params = agent.actor["params"], agent.critic["params"]
    compile_one = partial(compile_lowered, platform=placement.platform, params=params)
    with ThreadPoolExecutor() as pool:  # XLA compiles without holding the interpreter
        programs = dict(zip(lowered, pool.map(compile_one, lowered.values()), strict=True))
    mesh = _mesh(placement)
    return Programs(placement, _sharding(mesh, _STACKED), _sharding(mesh, _SHARED),
                    _shardings(mesh, _state_axes(setup)), **programs)  # fmt: skip


def lower_programs(
    setup: Setup, placement: Placement, *, starts: Starts, hyperparameters: Any
) -> dict[str, jax.stages.Lowered]:
    """Returns the programs by the names of `Programs`, before XLA has compiled them (see `compile_programs`)."""
    mesh, n, axes = _mesh(placement), placement.block_size, _state_axes(setup)
    scalars = _scalar_shapes(hyperparameters, n)
    keys = jax.eval_shape(lambda: jax.random.key_data(jax.random.split(jax.random.key(0), n)))

    def initialize(key_data: jax.Array, hyperparameters: Hyperparameters) -> TrainState:
        return loop.init(jax.random.wrap_key_data(key_data), hyperparameters, setup=setup)

    init = _Function(initialize, (0, 0), axes, (keys, scalars))
    states = jax.eval_shape(_over_block(init, mesh, placement), keys, scalars)
    make = _with_compiled_environment if setup.environment.host_env is None else _with_host_environment
    rest = make(setup, states, scalars, jax.eval_shape(lambda: starts), len(placement.devices))
    return {name: _lower(each, mesh, placement) for name, each in {"init": init, **rest}.items()}


def train_state_shapes(setup: Setup) -> TrainState:
    """Returns the shapes and dtypes of one agent's training state."""
    scalars = Hyperparameters(*(0.0,) * 8, noise=NoiseProcess(0.0, 0.0, 0.0))  # their values change no shape
    return jax.eval_shape(lambda: loop.init(jax.random.key(0), scalars, setup=setup))


def _with_compiled_environment(
    setup: Setup, states: TrainState, scalars: Hyperparameters, starts: Any, num_devices: int
) -> dict[str, _Function]:
    """Returns what is compiled where the environment is a part of the programs."""
    axes = _state_axes(setup)
    train = partial(loop.train, setup=setup, max_steps=MAX_CHUNK)
    evaluate = partial(evaluation.greedy_episodes, environment=setup.environment, algorithm=setup.algorithm)
    steps = jax.ShapeDtypeStruct((num_devices,), jnp.int32)
    return {
        "train": _Function(train, (axes, 0, None), (axes, 0), (states, scalars, steps), donated=(0,), per_device=(2,)),
        "evaluate": _Function(evaluate, (axes.agent, None), 0, (states.agent, starts)),
    }


def _with_host_environment(
    setup: Setup, states: TrainState, scalars: Hyperparameters, starts: Any, num_devices: int
) -> dict[str, _Function]:
    """Returns what is compiled where environments step on the host: one call per step."""
    axes, n, size = _state_axes(setup), states.env.observation.shape[0], setup.environment.observation_size
    received = jax.ShapeDtypeStruct((n, setup.num_envs, 2 * size + 3), jnp.float32)
    observations = jax.ShapeDtypeStruct((n, starts.observation.shape[0], size), jnp.float32)
    begin = partial(host_env.begin, setup=setup)
    train = partial(host_env.step, setup=setup)
    act = partial(evaluation.act, algorithm=setup.algorithm)
    return {
        "begin": _Function(begin, (axes, 0, 0), (axes, 0), (states, states.env.observation, scalars), donated=(0,)),
        "train": _Function(train, (axes, 0, 0), (axes, 0, 0), (states, received, scalars), donated=(0,)),
        "evaluate": _Function(act, (axes.agent, 0), 0, (states.agent, observations)),
    }


def _state_axes(setup: Setup) -> TrainState:
    """Returns the axis of the agents in a block's state. They advance in step, so they share counters.

    The counter of updates is shared where it decides what an update does, so that this is a branch also in a group.
    """
    agent: Any = _STACKED
    if setup.algorithm.policy_delay > 1:
        agent = AgentState(*(_STACKED,) * 6, step=_SHARED, ema_actor=_STACKED)
    replay = Replay(rows=_STACKED, added=_SHARED)
    return TrainState(agent=agent, replay=replay, env=_STACKED, key=_STACKED, step=_SHARED)


def _scalar_shapes(tree: Any, num_agents: int) -> Hyperparameters:
    shapes = [jax.ShapeDtypeStruct((num_agents,), jnp.float32)] * tree.num_leaves
    scalars: Hyperparameters = jax.tree.unflatten(tree, shapes)
    return scalars


def _lower(each: _Function, mesh: Mesh, placement: Placement) -> jax.stages.Lowered:
    return jax.jit(
        _over_block(each, mesh, placement),
        in_shardings=_shardings(mesh, _divided(each)),
        out_shardings=_shardings(mesh, each.out_axes),
        donate_argnums=each.donated,
    ).lower(*each.arguments)


def _over_block(each: _Function, mesh: Mesh, placement: Placement) -> Callable[..., Any]:
    """Returns the function of a block of agents, a group on every device."""
    grouped = _over_group(each, placement.group_size)

    def on_device(*arguments: Any) -> Any:
        return grouped(*(x[0] if i in each.per_device else x for i, x in enumerate(arguments)))

    in_specs, out_specs = (_mapped(_spec, axes) for axes in (_divided(each), each.out_axes))
    return jax.shard_map(on_device, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _over_group(each: _Function, group_size: int) -> Callable[..., Any]:
    """Turns a function of one agent into that of a group; a group of one needs no batched arithmetic (saves 6%)."""
    if group_size > 1:
        return jax.vmap(each.function, each.in_axes, each.out_axes)

    def alone(*arguments: Any) -> Any:
        given = zip(each.in_axes, arguments, strict=True)
        result = each.function(*(_with_agent_axis(axis, tree, lambda x: x[0]) for axis, tree in given))
        return _with_agent_axis(each.out_axes, result, lambda x: x[None])

    return alone


def _with_agent_axis(axes: Any, tree: Any, change: Callable[[jax.Array], jax.Array]) -> Any:
    """Changes the arrays of a tree that have an axis of agents; `axes` is a prefix of the tree, as in `vmap`."""
    full = jax.tree.broadcast(axes, tree, is_leaf=lambda axis: axis is None)
    return jax.tree.map(lambda axis, x: x if axis is None else change(x), full, tree, is_leaf=lambda x: x is None)


def _divided(each: _Function) -> tuple:
    """Returns the axis along which each argument is divided among the devices."""
    return tuple(_STACKED if i in each.per_device else axis for i, axis in enumerate(each.in_axes))


def _mesh(placement: Placement) -> Mesh:
    return Mesh(np.asarray(placement.devices), ("agents",))


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec("agents")


def _sharding(mesh: Mesh, axis: int | None) -> NamedSharding:
    return NamedSharding(mesh, _spec(axis))


def _shardings(mesh: Mesh, axes: Any) -> Any:
    return _mapped(partial(_sharding, mesh), axes)


def _mapped(function: Callable[[int | None], Any], axes: Any) -> Any:
    return jax.tree.map(function, axes, is_leaf=lambda axis: axis is None)
