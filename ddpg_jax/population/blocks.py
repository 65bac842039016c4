"""The agents of one process on its devices, block after block: the host's handle on their states."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.evaluation import GreedyEpisodes
from ddpg_jax.algorithm.loop import unpack_log
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, StepLog, TrainState, Transition, is_key
from ddpg_jax.population.programs import Programs

PORTION_BYTES = 64 * 2**20
"""Bytes of the agents' states that are copied to the host at a time."""

IN_FLIGHT = 4
"""The largest number of calls under way: with all blocks of many agents in flight, each took longer."""


def agent_keys(seed: int, seeds: np.ndarray) -> jax.Array:
    """Returns the keys [N] of agents: the root key with the number of each folded in, so that they are independent."""
    return _folded_in(jax.random.key(seed), np.asarray(seeds))


@jax.jit
def _folded_in(root: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(numbers)


def spread(tree: Any, shardings: Any) -> Any:
    """Puts arrays [n, ...] of this process on its devices, as its part of arrays that all processes share.

    `shardings` is a prefix of the tree. Arrays without an axis of agents must be the same in all processes.
    """

    def put(sharding: Any, x: Any) -> jax.Array:
        if is_key(x):
            return jax.random.wrap_key_data(put(sharding, jax.random.key_data(x)))
        if isinstance(sharding, Format):  # which the function below does not know with several processes
            return jax.device_put(put(sharding.sharding, x), sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(put, jax.tree.broadcast(shardings, tree), tree)


def on_host(array: jax.Array, rows: int | None = None) -> np.ndarray:
    """Returns the part [n, ...] of an array that this process holds on its devices; random keys as their data.

    With `rows`, it returns only so many entries of the second axis.
    """
    arrays = [np.asarray(jax.random.key_data(part) if is_key(part) else part) for part in _parts(array)]
    arrays = arrays if rows is None else [part[:, :rows] for part in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _parts(array: jax.Array) -> list[jax.Array]:
    """Returns the part of an array that each device of this process holds; one part if all are the same."""
    if array.is_fully_replicated:
        return [array.addressable_data(0)]
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [shard.data for shard in shards]


class Population:
    """The agents of this process on its devices, block after block."""

    def __init__(
        self,
        programs: Programs,
        keys: jax.Array,
        hyperparameters: Hyperparameters,
        *,
        num_agents: int | None = None,
        num_blocks: int | None = None,
    ) -> None:
        """Makes new agents.

        Args:
            programs: compiled for their setup.
            keys: one key per agent (`agent_keys`), N or more.
            hyperparameters: arrays with one number per key.
            num_agents: N; None: as many as keys. Further keys make agents that only fill up.
            num_blocks: the number of blocks, if another process needs more of them than this one.
        """
        self.num_agents = len(keys) if num_agents is None else num_agents
        self._programs, self._size = programs, programs.placement.local_block_size
        self._num_blocks = num_blocks or math.ceil(len(keys) / self._size)
        self._hyperparameters = self._blocks(hyperparameters)
        key_data = self._blocks(np.asarray(jax.random.key_data(keys)))
        self.states = [programs.init(*block) for block in zip(key_data, self._hyperparameters, strict=True)]

    def advance(self, num_steps: int, on_progress: Callable[[int], None] = lambda agent_steps: None) -> StepLog:
        """Trains every agent for `num_steps` steps of the loop; the log's arrays are [N, num_steps] (see `StepLog`).

        `on_progress` is called each time a block has advanced, with its steps, summed over its agents.
        """
        logs: list[jax.Array] = []

        def wait_for(block: int) -> None:
            logs[block].block_until_ready()
            on_progress(num_steps * len(self._agents_of(block)))

        for index, hyperparameters in enumerate(self._hyperparameters):
            if index >= IN_FLIGHT:
                wait_for(index - IN_FLIGHT)
            steps = spread(np.int32(num_steps) * self._busy(index), self._programs.stacked)
            self.states[index], log = self._programs.train(self.states[index], hyperparameters, steps)
            logs.append(log)
        for index in range(max(0, len(logs) - IN_FLIGHT), len(logs)):
            wait_for(index)
        rows = self._gather(logs)[:, :num_steps]
        return unpack_log(rows)

    def replace(self, states: Sequence[TrainState]) -> None:
        """Continues from other states of its blocks, on whatever devices they are."""
        if len(states) != len(self.states):
            raise ValueError(f"there are {len(states)} blocks of agents, but must be {len(self.states)}")
        self.states = [jax.device_put(state, self._programs.states) for state in states]

    def restore(self, state_of: Callable[[np.ndarray, TrainState], TrainState]) -> None:
        """Continues from other states, block after block, because two copies of all might not fit into memory.

        `state_of` is given the positions [n] of a block's agents, which exceed the last agent's where they only fill
        up, and the block's states; it returns the states that replace them, arrays [n, ...] on the host.
        """
        for index in range(self._num_blocks):
            positions = np.arange(index * self._size, (index + 1) * self._size)
            self.states[index] = spread(state_of(positions, self.states[index]), self._programs.states)

    def locate(self, positions: np.ndarray) -> dict[int, list[int]]:
        """Returns where agents are: for each block their indices in the part of it that this process holds."""
        found: dict[int, list[int]] = {}
        for position in positions:
            block, within = divmod(int(position), self._size)
            found.setdefault(block, []).append(within)
        return found

    def transitions(self, agent: int, first_step: int, last_step: int) -> Transition:
        """Returns the transitions [T, ...] that an agent stored after `first_step` up to `last_step`."""
        ((block, (within,)),) = self.locate(np.array([agent])).items()
        device, position = divmod(within, self._programs.placement.group_size)
        rows = _parts(self.states[block].replay.rows)[device]
        indices = np.arange(first_step, last_step) % rows.shape[1]
        return replay.unpack(np.asarray(rows[position, indices]), self.states[block].noise.shape[-1])

    def evaluate(self, starts: Any) -> GreedyEpisodes:
        """Runs greedy episodes, NumPy arrays [N, S], from the start states that all agents share."""
        starts = spread(starts, self._programs.shared)
        blocks = [self._programs.evaluate(state.agent, starts) for state in self.states]
        return GreedyEpisodes(*(self._gather(arrays) for arrays in zip(*blocks, strict=True)))

    def agents(self, fields: Callable[[AgentState], Any]) -> Any:
        """Returns what `fields` selects of the agents' states, as NumPy arrays [N, ...]."""
        return _joined([jax.tree.map(on_host, fields(state.agent)) for state in self.states], self.num_agents)

    def portions(self, take: Callable[[TrainState], Any]) -> Iterator[tuple[range, Any]]:
        """Copies something of the agents' states to the host, in portions of about `PORTION_BYTES`.

        Args:
            take: (states of a block) -> tree of arrays [n, ...] on the host (`on_host`).

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

    def _busy(self, block: int) -> np.ndarray:
        """Returns 1 for each device of this process with an agent of the block, 0 where all only fill up."""
        first = np.arange(0, self._size, self._programs.placement.group_size)
        return (first < len(self._agents_of(block))).astype(np.int32)

    def _agents_of(self, block: int) -> range:
        """Returns the positions of the agents in a block, without those that only fill it up."""
        first = min(block * self._size, self.num_agents)
        return range(first, min(first + self._size, self.num_agents))

    def _blocks(self, tree: Any) -> list[Any]:
        """Returns a tree [N, ...] divided into blocks on their devices; copies of the last agent fill up."""
        tree = jax.tree.map(np.asarray, tree)
        last = len(jax.tree.leaves(tree)[0]) - 1
        index = np.arange(self._num_blocks * self._size).clip(max=last)
        return [
            spread(jax.tree.map(lambda x, i=i: x[i], tree), self._programs.stacked)
            for i in index.reshape(-1, self._size)
        ]

    def _gather(self, arrays: Sequence[jax.Array]) -> np.ndarray:
        """Returns the blocks' arrays [n, ...] as one array [N, ...] on the host."""
        return np.concatenate([on_host(array) for array in arrays])[: self.num_agents]


def _joined(trees: Sequence[Any], num_agents: int) -> Any:
    """Joins trees of consecutive agents and keeps the first `num_agents`; arrays without that axis are all equal."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_agents] if leaves[0].ndim else leaves[0], *trees)
