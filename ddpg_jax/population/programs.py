"""Many agents: blocks of them advance together over the devices, by programs that are compiled once.

A *block* is a group of agents on every device: the devices stand in a mesh with one axis, `agents`, and a group
advances together under `vmap`. The programs are compiled for one block, and the host calls them for one block after
another, so neither what is compiled nor a single bit of an agent's result depends on how many agents there are. The
last block is filled up with copies that are thrown away.

Where several processes carry out a run together (`team.py`), the mesh has the devices of all of them. Each holds a
`Population` of its own agents, and calls the same programs for its part of the same blocks; the programs contain no
communication.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddpg_jax.algorithm import replay, rollout, training
from ddpg_jax.algorithm.training import Setup
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, NoiseProcess, Replay, StepLog, TrainState, Transition

_OWN: Any = 0
_SHARED: Any = None
_STACKED = TrainState(
    agent=_OWN,
    replay=Replay(rows=_OWN, added=_SHARED),
    noise=_OWN,
    environment=_OWN,
    observation=_OWN,
    episode=_OWN,
    key=_OWN,
    step=_SHARED,
)
"""The axis of the agents in a block's state: they march in step, so they share the counters of steps and rows."""


PORTION_BYTES = 64 * 2**20
"""What is copied to the host of all agents' states at a time."""


IN_FLIGHT = 4
"""Calls that have been made and not ended, at most: with all blocks of many agents in flight, each took longer."""


CPU_OPTIONS: dict[str, bool | str] = {"xla_cpu_copy_insertion_use_region_analysis": True}
"""Of XLA's compiler on a CPU (measured: `benchmarks/README.md`).

A closer look at what is still needed spares copies of parameters that are about to be replaced.
"""


class Placement(NamedTuple):
    """Which agents advance where."""

    devices: tuple[jax.Device, ...]
    """Of all processes, as many of each."""
    group_size: int
    """Agents that advance together on a device."""

    @property
    def block_size(self) -> int:
        """Agents in a block."""
        return len(self.devices) * self.group_size

    @property
    def num_processes(self) -> int:
        """Processes that the devices belong to."""
        return len({device.process_index for device in self.devices})

    @property
    def local_block_size(self) -> int:
        """Agents of a block that one process holds."""
        return self.block_size // self.num_processes

    def num_blocks(self, num_agents: int) -> int:
        """Blocks that hold so many agents."""
        return math.ceil(num_agents / self.block_size)


def choose_group_size(setup: Setup, platform: str) -> int:
    """How many agents advance together on a device; it depends on the networks and the platform alone.

    On a CPU a large network stays in the core's cache if it advances alone, and small ones share the overhead of each
    operation (measured: `benchmarks/README.md`). An accelerator wants all the work it can get at once.
    """
    if platform != "cpu":
        return 256
    return 1 if num_parameters(setup) > 50_000 else 4


def num_parameters(setup: Setup) -> int:
    """Parameters of an agent's actor and critic together."""
    state = jax.eval_shape(partial(training.init, setup=setup), jax.random.key(0), EXAMPLE_HYPERPARAMETERS).agent
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves((state.actor_params, state.critic_params)))


def agent_keys(seed: int, seeds: np.ndarray) -> jax.Array:
    """The keys [N] of agents: agent i's is the root key with i folded in, so agents do not depend on one another."""
    root = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(seeds))


class Programs(NamedTuple):
    """The compiled programs of one block of n agents; states are donated to `train`."""

    placement: Placement
    stacked: NamedSharding
    """Where an array with a leading axis of n agents lies."""
    states: Any
    """Where the arrays of a training state lie: a tree of shardings."""
    init: Callable[[jax.Array, Hyperparameters], TrainState]
    """(data of keys [n, ...], hyperparameters [n]) -> states [n]."""
    train: Callable[[TrainState, Hyperparameters, Any], tuple[TrainState, jax.Array]]
    """(states [n], hyperparameters [n], number of steps []) -> states [n], logs [n, max_steps, 5]."""
    evaluate: Callable[[AgentState, Any], jax.Array]
    """(agents [n], start states [S]) -> greedy returns [n, S]."""


def compile_programs(setup: Setup, placement: Placement, *, max_steps: int, num_starts: int) -> Programs:
    """Compiles what a run needs, all of it ahead of time.

    Args:
        setup: of every agent.
        placement: of a block.
        max_steps: the longest chunk that `train` will be asked for.
        num_starts: S, start states in a call of `evaluate`.
    """
    mesh = Mesh(np.asarray(placement.devices), ("agents",))
    stacked, shared = NamedSharding(mesh, PartitionSpec("agents")), NamedSharding(mesh, PartitionSpec())

    def over_block(function: Callable, in_axes: tuple, out_axes: Any) -> Callable:
        grouped = _over_group(function, in_axes, out_axes, placement.group_size)
        return jax.shard_map(grouped, mesh=mesh, in_specs=_specs(in_axes), out_specs=_specs(out_axes), check_vma=False)

    def initialize(key_data: jax.Array, hyperparameters: Hyperparameters) -> TrainState:
        return training.init(jax.random.wrap_key_data(key_data), hyperparameters, setup=setup)

    init = over_block(initialize, (0, 0), _STACKED)
    train = over_block(partial(training.train, setup=setup, max_steps=max_steps), (_STACKED, 0, None), (_STACKED, 0))
    evaluate = over_block(
        partial(rollout.greedy_returns, environment=setup.environment, algorithm=setup.algorithm), (0, None), 0
    )

    n = placement.block_size
    keys = jax.eval_shape(lambda: jax.random.key_data(jax.random.split(jax.random.key(0), n)))
    hyperparameters = jax.tree.map(lambda _: jax.ShapeDtypeStruct((n,), jnp.float32), EXAMPLE_HYPERPARAMETERS)
    states = jax.eval_shape(init, keys, hyperparameters)
    starts = jax.eval_shape(lambda: setup.environment.evaluation_starts(num_starts))
    sharding = jax.tree.map(lambda spec: NamedSharding(mesh, spec), _specs(_STACKED))
    lowered = (
        jax.jit(init, in_shardings=stacked, out_shardings=sharding).lower(keys, hyperparameters),
        jax.jit(
            train,
            in_shardings=(sharding, stacked, shared),
            out_shardings=(sharding, stacked),
            donate_argnums=0,
        ).lower(states, hyperparameters, jax.ShapeDtypeStruct((), jnp.int32)),
        jax.jit(evaluate, in_shardings=(stacked, shared), out_shardings=stacked).lower(states.agent, starts),
    )
    with ThreadPoolExecutor() as pool:  # XLA compiles without holding the interpreter
        compiled = pool.map(partial(_compile, platform=placement.devices[0].platform), lowered)
        return Programs(placement, stacked, sharding, *compiled)


def _compile(program: jax.stages.Lowered, platform: str) -> jax.stages.Compiled:
    """Compiles with the options that pay on a platform, as far as this XLA has them."""
    if platform != "cpu":
        return program.compile()
    try:
        return program.compile(compiler_options=CPU_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return program.compile()


def _over_group(function: Callable, in_axes: tuple, out_axes: Any, group_size: int) -> Callable:
    """The function of one agent for a group of them; a group of one is spared the batched arithmetic (6%)."""
    if group_size > 1:
        return jax.vmap(function, in_axes, out_axes)

    def alone(*arguments: Any) -> Any:
        result = function(*(_each(axis, tree, lambda x: x[0]) for axis, tree in zip(in_axes, arguments, strict=True)))
        return _each(out_axes, result, lambda x: x[None])

    return alone


def _each(axes: Any, tree: Any, change: Callable[[jax.Array], jax.Array]) -> Any:
    """The tree with its arrays that have an axis of agents changed; `axes` is a prefix of it, as in `vmap`."""
    parts = jax.tree.broadcast(axes, tree, is_leaf=lambda axis: axis is None)
    return jax.tree.map(lambda axis, x: x if axis is None else change(x), parts, tree, is_leaf=lambda x: x is None)


def _specs(axes: Any) -> Any:
    """Agents over the mesh where there is an axis of them, the same everywhere where there is none."""

    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec("agents")

    return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)


def spread(tree: Any, shardings: Any) -> Any:
    """Puts arrays [n, ...] of this process on its devices, as its part of arrays that all processes share.

    `shardings` is a prefix of the tree. What has no axis of agents must be the same in all processes.
    """

    def place(sharding: NamedSharding, x: Any) -> jax.Array:
        if is_key(x):
            return jax.random.wrap_key_data(place(sharding, jax.random.key_data(x)))
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(place, jax.tree.broadcast(shardings, tree), tree)


def on_host(array: jax.Array, rows: int | None = None) -> np.ndarray:
    """What this process has [n, ...] of an array on its devices; keys as their data.

    With `rows`, only as many of the second axis.
    """
    arrays = [np.asarray(jax.random.key_data(part) if is_key(part) else part) for part in _parts(array)]
    arrays = arrays if rows is None else [part[:, :rows] for part in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _parts(array: jax.Array) -> list[jax.Array]:
    """What each device of this process holds of an array, or one of them, where it is the same everywhere."""
    if array.is_fully_replicated:
        return [array.addressable_data(0)]
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [shard.data for shard in shards]


def is_key(leaf: Any) -> bool:
    """Whether an array holds random keys, which are saved and placed as their data."""
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


class Population:
    """Agents of this process on its devices, block after block. The host's handle on many training states."""

    def __init__(
        self,
        programs: Programs,
        keys: jax.Array,
        hyperparameters: Hyperparameters,
        *,
        num_agents: int | None = None,
        num_blocks: int | None = None,
    ) -> None:
        """New agents.

        Args:
            programs: compiled for their setup.
            keys: [N] or more, one of each agent (`agent_keys`).
            hyperparameters: of each agent, as many.
            num_agents: N, if it is less; the others only fill up.
            num_blocks: if there are to be more than it takes, because another process has more agents.
        """
        self.num_agents = len(keys) if num_agents is None else num_agents
        self._programs, self._size = programs, programs.placement.local_block_size
        self._num_blocks = num_blocks or math.ceil(len(keys) / self._size)
        self._hyperparameters = self._blocks(hyperparameters)
        key_data = self._blocks(np.asarray(jax.random.key_data(keys)))
        self.states = [programs.init(*block) for block in zip(key_data, self._hyperparameters, strict=True)]

    def train(self, num_steps: int, after_block: Callable[[int], None] = lambda num_agents: None) -> StepLog:
        """`num_steps` steps of every agent; the log has [N, num_steps] entries.

        `after_block` is called each time some agents have advanced, with their number.
        """
        logs: list[jax.Array] = []
        steps = np.int32(num_steps)

        def wait_for(block: int) -> None:
            logs[block].block_until_ready()
            after_block(len(self._agents_of(block)))

        for index, hyperparameters in enumerate(self._hyperparameters):
            if index >= IN_FLIGHT:
                wait_for(index - IN_FLIGHT)
            self.states[index], log = self._programs.train(self.states[index], hyperparameters, steps)
            logs.append(log)
        for index in range(max(0, len(logs) - IN_FLIGHT), len(logs)):
            wait_for(index)
        rows = self._gather(logs)[:, :num_steps]
        return StepLog(*np.moveaxis(rows, -1, 0))

    def place(self, states: Sequence[TrainState]) -> None:
        """Goes on from these states of its blocks, wherever their arrays lie."""
        if len(states) != len(self.states):
            raise ValueError(f"there are {len(states)} blocks of agents, but must be {len(self.states)}")
        self.states = [jax.device_put(state, self._programs.states) for state in states]

    def restore(self, state_of: Callable[[np.ndarray, TrainState], TrainState]) -> None:
        """Goes on from other states, block after block, because two copies of all might not fit into the memory.

        `state_of` is given positions [n] of agents, beyond the last where they only fill up, and the states that are
        there; it returns what replaces them, arrays [n, ...] on the host.
        """
        for index in range(self._num_blocks):
            positions = np.arange(index * self._size, (index + 1) * self._size)
            self.states[index] = spread(state_of(positions, self.states[index]), self._programs.states)

    def places(self, positions: np.ndarray) -> dict[int, list[int]]:
        """Where the agents at these positions are: in each block, their indices in what this process has of it."""
        found: dict[int, list[int]] = {}
        for position in positions:
            block, within = divmod(int(position), self._size)
            found.setdefault(block, []).append(within)
        return found

    def transitions(self, agent: int, first_step: int, last_step: int) -> Transition:
        """What an agent (counted in this population) stored in its steps after the first up to the last, [T, ...]."""
        ((block, (within,)),) = self.places(np.array([agent])).items()
        device, position = divmod(within, self._programs.placement.group_size)
        rows = _parts(self.states[block].replay.rows)[device]
        indices = np.arange(first_step, last_step) % rows.shape[1]
        return replay.unpack(np.asarray(rows[position, indices]), self.states[block].noise.shape[-1])

    def evaluate(self, starts: Any) -> np.ndarray:
        """Greedy returns [N, S] from the start states that all agents share."""
        starts = jax.tree.map(np.asarray, starts)
        return self._gather([self._programs.evaluate(state.agent, starts) for state in self.states])

    def agents(self, fields: Callable[[AgentState], Any]) -> Any:
        """What `fields` picks of the agents' states, as NumPy arrays [N, ...]."""
        return _joined([jax.tree.map(on_host, fields(state.agent)) for state in self.states], self.num_agents)

    def portions(self, take: Callable[[TrainState], Any]) -> Iterator[tuple[range, Any]]:
        """What is made of the agents' states, in portions of about `PORTION_BYTES`.

        Args:
            take: (states of a block) -> tree of what this process has of it on the host, [n, ...] (`on_host`).

        Yields:
            The agents' positions in this population, and the tree [N', ...] of them.
        """
        held: list[Any] = []
        first = num_bytes = 0
        for index, state in enumerate(self.states):
            stop = self._agents_of(index).stop
            if stop == first:  # the rest only fills up
                break
            held.append(take(state))
            num_bytes += sum(leaf.nbytes for leaf in jax.tree.leaves(held[-1]))
            if num_bytes >= PORTION_BYTES or stop == self.num_agents:
                yield range(first, stop), _joined(held, stop - first)
                held, first, num_bytes = [], stop, 0

    def _agents_of(self, block: int) -> range:
        """The positions of the agents in a block; what only fills it up is not counted."""
        first = min(block * self._size, self.num_agents)
        return range(first, min(first + self._size, self.num_agents))

    def _blocks(self, tree: Any) -> list[Any]:
        """The tree [N, ...] cut into blocks on their devices; copies of the last agent fill up."""
        tree = jax.tree.map(np.asarray, tree)
        last = len(jax.tree.leaves(tree)[0]) - 1
        index = np.arange(self._num_blocks * self._size).clip(max=last)
        return [
            spread(jax.tree.map(lambda x, i=i: x[i], tree), self._programs.stacked)
            for i in index.reshape(-1, self._size)
        ]

    def _gather(self, arrays: Sequence[jax.Array]) -> np.ndarray:
        """The blocks' arrays [n, ...] as one [N, ...] on the host."""
        return np.concatenate([on_host(array) for array in arrays])[: self.num_agents]


def _joined(trees: Sequence[Any], num_agents: int) -> Any:
    """Trees of consecutive agents as one of the first so many; what has no axis of agents is the same in all."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_agents] if leaves[0].ndim else leaves[0], *trees)


EXAMPLE_HYPERPARAMETERS = Hyperparameters(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, NoiseProcess(0.0, 0.0, 0.0))
"""The tree of an agent's hyperparameters; only its shape counts."""
