"""The agents of one process on its devices, block after block: the host's handle on their states."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, StepLog, TrainState, Transition
from ddpg_jax.population.programs import Programs

PORTION_BYTES = 64 * 2**20
"""What is copied to the host of all agents' states at a time."""


IN_FLIGHT = 4
"""Calls that have been made and not ended, at most: with all blocks of many agents in flight, each took longer."""


def agent_keys(seed: int, seeds: np.ndarray) -> jax.Array:
    """The keys [N] of agents: agent i's is the root key with i folded in, so agents do not depend on one another."""
    root = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(seeds))


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

    def train(self, num_steps: int, on_progress: Callable[[int], None] = lambda agent_steps: None) -> StepLog:
        """`num_steps` steps of every agent; the log has [N, num_steps] entries.

        `on_progress` is called each time a block has advanced, with its environment steps, summed over its agents.
        """
        logs: list[jax.Array] = []
        steps = np.int32(num_steps)

        def wait_for(block: int) -> None:
            logs[block].block_until_ready()
            on_progress(num_steps * len(self._agents_of(block)))

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
