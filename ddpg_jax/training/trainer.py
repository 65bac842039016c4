"""N agents of one setup on the devices of this process.

Blocks, groups and the copies that fill them up are internal to this file, `programs.py` and `host_trainer.py`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.evaluation import GreedyEpisodes, Starts
from ddpg_jax.algorithm.loop import unpack_log
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import AgentState, Hyperparameters, StepLog, TrainState, Transition, is_key
from ddpg_jax.training.arrays import ArrayPieces
from ddpg_jax.training.programs import MAX_CHUNK, Placement, Programs, choose_placement, compile_programs

IN_FLIGHT = 4
"""The largest number of blocks dispatched at once; dispatching all blocks of many agents made each slower."""

REPLAY = ".replay.rows"
"""Name of the replay's array, of which only the rows that have been written are saved."""


Read = Callable[[str, slice | None], np.ndarray]
"""(name, rows of the first axis or None for all) -> what was saved under that name."""


def agent_keys(seed: int, seeds: np.ndarray) -> jax.Array:
    """Returns the keys [N] of agents: the root key with the number of each agent's seed folded in."""
    return _fold_each(jax.random.key(seed), np.asarray(seeds))


@jax.jit
def _fold_each(root: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(numbers)


class Trainer:
    """N agents that advance together."""

    def __init__(
        self,
        setup: Setup,
        keys: jax.Array,
        hyperparameters: Hyperparameters,
        *,
        starts: Starts,
        placement: Placement | None = None,
        programs: Programs | None = None,
    ) -> None:
        """Compiles the programs and makes new agents.

        Args:
            setup: of all agents.
            keys: [N], consumed (`agent_keys`).
            hyperparameters: arrays [N].
            starts: S start states; evaluations run this many episodes at a time.
            placement: devices and group size; default: those that suit the agents (`choose_placement`).
            programs: compiled for an equal setup and placement; default: they are compiled here.
        """
        on_host = setup.environment.host_env is not None
        placement = placement or choose_placement(len(keys), on_host=on_host)
        structure = jax.tree.structure(hyperparameters)
        self.setup, self.num_agents = setup, len(keys)
        self.programs = programs or compile_programs(setup, placement, starts=starts, hyperparameters=structure)
        self._episodes_at_once, self._size = len(starts.observation), placement.block_size
        self._num_blocks = placement.num_blocks(self.num_agents)
        self.hyperparameters = hyperparameters
        key_data = self._in_blocks(np.asarray(jax.random.key_data(keys)))
        self._states = [self.programs.init(*block) for block in zip(key_data, self._hyperparameters, strict=True)]

    def __repr__(self) -> str:
        return f"Trainer({self.num_agents} agents, {self.setup.environment.env_id}, {self.programs.placement})"

    def close(self) -> None:
        """Closes the environments on the host; here there are none."""

    @property
    def failure(self) -> Exception | None:
        """The error of an environment on the host that ended the last `advance` early."""
        return None

    def advance(
        self,
        num_steps: int,
        *,
        frozen: np.ndarray | None = None,
        on_progress: Callable[[int], None] = lambda agent_steps: None,
    ) -> StepLog:
        """Trains every agent for `num_steps` steps of the loop.

        Args:
            num_steps: at most `programs.MAX_CHUNK`; each makes a step in every environment of an agent.
            frozen: indices of agents that have diverged. They keep acting, but their networks stay unchanged.
            on_progress: called when a block has advanced, with its steps, summed over its agents.

        Returns:
            The log, arrays [N, num_steps] (`StepLog`).

        Raises:
            ValueError: if `num_steps` is larger.
        """
        if num_steps > MAX_CHUNK:
            raise ValueError(f"num_steps is {num_steps}, but must be at most {MAX_CHUNK}: the log has no more rows")
        kept = self._agents_at(np.zeros(0, int) if frozen is None else frozen)
        log = self._advance(num_steps, on_progress)
        for block, (rows, agents) in kept.items():
            new = jax.tree.map(lambda x, old, rows=rows: _with_rows(x, rows, old), self._states[block].agent, agents)
            self._states[block] = self._states[block]._replace(agent=new)
        return log

    def _advance(self, num_steps: int, on_progress: Callable[[int], None]) -> StepLog:
        logs: list[jax.Array] = []

        def wait_for(block: int) -> None:
            logs[block].block_until_ready()
            on_progress(num_steps * len(self._agents_of(block)))

        for index, hyperparameters in enumerate(self._hyperparameters):
            if index >= IN_FLIGHT:
                wait_for(index - IN_FLIGHT)
            steps = jax.device_put(np.int32(num_steps) * self._busy(index), self.programs.stacked)
            self._states[index], log = self.programs.train(self._states[index], hyperparameters, steps)
            logs.append(log)
        for index in range(max(0, len(logs) - IN_FLIGHT), len(logs)):
            wait_for(index)
        return unpack_log(self._gather(logs)[:, :num_steps])

    def evaluate(self, starts: Starts, on_progress: Callable[[float], None] = lambda episodes: None) -> GreedyEpisodes:
        """Runs greedy episodes from S start states that all agents share; returns NumPy arrays [N, S].

        `on_progress` is called with the episodes per agent that have been added.
        """
        num, size = len(starts.observation), self._episodes_at_once
        # Rows are taken on the host, where nothing is compiled for them; only JAX can index keys.
        starts = jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), starts)
        episodes = []
        for first in range(0, num, size):
            index = np.arange(first, first + size).clip(max=num - 1)
            episodes.append(self._evaluate(jax.tree.map(lambda x, i=index: x[i], starts)))
            on_progress(min(size, num - first))
        return GreedyEpisodes(*(np.concatenate(each, axis=1)[:, :num] for each in zip(*episodes, strict=True)))

    def _evaluate(self, starts: Starts) -> GreedyEpisodes:
        starts = jax.device_put(starts, self.programs.shared)
        blocks = [self.programs.evaluate(state.agent, starts) for state in self._states]
        return GreedyEpisodes(*(self._gather(arrays) for arrays in zip(*blocks, strict=True)))

    def variables(self, select: Callable[[AgentState], Any]) -> Any:
        """Returns `select` of all agents' states, as a tree of NumPy arrays [N, ...]."""
        trees = [jax.tree.map(np.asarray, select(state.agent)) for state in self._states]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: self.num_agents], *trees)

    def transitions(self, index: int, first_step: int, last_step: int) -> Transition:
        """Returns the transitions [T, ...] that an agent stored after `first_step` up to `last_step`, on the host.

        Steps are environment steps. They must still be in the replay.
        """
        block, row = divmod(index, self._size)
        rows = self._states[block].replay.rows
        device, within = divmod(row, self.programs.placement.group_size)
        shards = sorted(rows.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        positions = np.arange(first_step, last_step) % rows.shape[1]
        taken = np.asarray(shards[device].data[within, positions])
        return replay.unpack(taken, self.setup.environment.action_size)

    def saved_arrays(self) -> Iterator[ArrayPieces]:
        """Yields everything that the agents hold, by the paths in a `TrainState`; pieces are copied when asked for."""
        filled = min(int(self._states[0].replay.added), self._states[0].replay.rows.shape[1])
        for number, (name, example) in enumerate(_leaves_by_path(self._states[0]).items()):
            data = jax.eval_shape(_as_data, example)
            dtype, shape = np.dtype(data.dtype), data.shape
            if _is_shared(name, self.programs.states):
                yield ArrayPieces(name, dtype, shape, [np.asarray(_as_data(example))])
                continue
            length = (filled,) if name == REPLAY else shape[1:2]
            whole = (self.num_agents, *length, *shape[2:])
            yield ArrayPieces(name, dtype, whole, self._pieces(number, filled if name == REPLAY else None))

    def restore(self, read: Read) -> None:
        """Continues from what `saved_arrays` gave, block after block: two copies of all might not fit into memory.

        Raises:
            ValueError: if an array is missing or has another shape or dtype.
        """
        for index in range(self._num_blocks):
            agents = self._agents_of(index)
            fill_up = np.arange(self._size).clip(max=len(agents) - 1)
            leaves = []
            for name, leaf in _leaves_by_path(self._states[index]).items():
                shared = _is_shared(name, self.programs.states)
                array = read(name, None if shared else slice(agents.start, agents.stop))
                array = array if shared else array[fill_up]
                leaves.append(_fitting(name, array, leaf))
            state = jax.tree.unflatten(jax.tree.structure(self._states[index]), leaves)
            self._states[index] = jax.device_put(state, self.programs.states)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Arrays [N] on the host. Setting them compiles nothing anew."""
        return jax.tree.map(lambda *leaves: self._gather(leaves), *self._hyperparameters)

    @hyperparameters.setter
    def hyperparameters(self, hyperparameters: Hyperparameters) -> None:
        self._hyperparameters = self._in_blocks(hyperparameters)

    def keep(self, agents: np.ndarray) -> None:
        """Keeps only these agents, by their indices, in this order; the others leave, and free their memory.

        Nothing is compiled anew, and the bits of the agents that stay do not change.
        """
        self._rearrange(learned=agents, env=agents, own=agents)

    def copy(self, sources: np.ndarray, env_sources: np.ndarray | None = None) -> None:
        """Gives agent i what agent `sources[i]` has learned: networks, targets, optimizers' states and replay.

        Its random key and its hyperparameters remain its own, and so do its environments, unless `env_sources` names
        the agents whose environments' states are copied: those of an agent that has diverged are not finite.
        """
        own = np.arange(self.num_agents)
        self._rearrange(learned=sources, env=own if env_sources is None else env_sources, own=own)

    def _rearrange(self, *, learned: np.ndarray, env: np.ndarray, own: np.ndarray) -> None:
        """Gives agent i networks and replay of agent `learned[i]`, environments of `env[i]`, the rest of `own[i]`."""
        pieces = {each.name: list(each.pieces) for each in self.saved_arrays()}
        saved = {name: each[0] if len(each) == 1 else np.concatenate(each) for name, each in pieces.items()}
        hyperparameters = self.hyperparameters
        self.num_agents, self._num_blocks = len(own), self.programs.placement.num_blocks(len(own))
        del self._states[self._num_blocks :]
        self.hyperparameters = jax.tree.map(lambda x: x[own], hyperparameters)

        def read(name: str, rows: slice | None) -> np.ndarray:
            if rows is None:
                return saved[name]
            source = learned if name.startswith((".agent", ".replay")) else env if name.startswith(".env") else own
            return saved[name][source[rows]]

        Trainer.restore(self, read)

    def _pieces(self, number: int, filled: int | None) -> Iterator[np.ndarray]:
        """Yields the real agents' entries of the leaf with this number, block by block."""
        for index, state in enumerate(self._states):
            leaf = _as_data(jax.tree.leaves(state)[number])
            array = np.asarray(leaf)[: len(self._agents_of(index))]
            yield np.ascontiguousarray(array if filled is None else array[:, :filled])

    def _agents_at(self, indices: np.ndarray) -> dict[int, tuple[np.ndarray, AgentState]]:
        """Returns, for each block that holds some of these agents, their rows in it and their states."""
        found = {}
        for block in np.unique(indices // self._size).tolist():
            rows = indices[indices // self._size == block] % self._size
            found[block] = rows, jax.tree.map(lambda x, i=rows: _rows(x, i), self._states[block].agent)
        return found

    def _busy(self, block: int) -> np.ndarray:
        """Returns 1 for each device with an agent of the block, 0 where all only fill up."""
        first = np.arange(0, self._size, self.programs.placement.group_size)
        return (first < len(self._agents_of(block))).astype(np.int32)

    def _agents_of(self, block: int) -> range:
        """Returns the indices of the agents in a block, without those that only fill it up."""
        return range(block * self._size, min((block + 1) * self._size, self.num_agents))

    def _in_blocks(self, tree: Any) -> list[Any]:
        """Returns a tree [N, ...] divided into blocks on their devices; copies of the last agent fill up."""
        tree = jax.tree.map(np.asarray, tree)
        index = np.arange(self._num_blocks * self._size).clip(max=self.num_agents - 1).reshape(-1, self._size)
        return [jax.device_put(jax.tree.map(lambda x, i=i: x[i], tree), self.programs.stacked) for i in index]

    def _gather(self, arrays: Any) -> np.ndarray:
        """Returns the blocks' arrays [n, ...] as one array [N, ...] on the host."""
        return np.concatenate([np.asarray(array) for array in arrays])[: self.num_agents]


def _leaves_by_path(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _is_shared(name: str, shardings: TrainState) -> bool:
    """Returns whether the agents of a block share the array with this path."""
    prefixes = jax.tree_util.tree_leaves_with_path(shardings)
    sharding = next(s for path, s in prefixes if name.startswith(jax.tree_util.keystr(path)))
    return bool(sharding.spec == PartitionSpec())


def _as_data(leaf: Any) -> Any:
    """Returns random keys as their data, other arrays as they are."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _fitting(name: str, array: np.ndarray, leaf: jax.Array) -> Any:
    """Returns a saved array as the leaf of a state that it replaces."""
    like = jax.eval_shape(_as_data, leaf)
    if name == REPLAY and array.ndim == 3 and array.shape[1] < like.shape[1]:
        missing = (array.shape[0], like.shape[1] - array.shape[1], array.shape[2])
        array = np.concatenate([array, np.zeros(missing, array.dtype)], axis=1)
    if array.shape != like.shape or array.dtype != like.dtype:
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, but must be {like.dtype}{list(like.shape)}")
    return jax.random.wrap_key_data(jnp.asarray(array)) if is_key(leaf) else array


def _rows(array: jax.Array, rows: np.ndarray) -> np.ndarray:
    return np.asarray(array)[rows] if array.ndim else np.asarray(array)


def _with_rows(array: jax.Array, rows: np.ndarray, values: np.ndarray) -> jax.Array:
    """Returns the array [n, ...] with some rows replaced, on the same devices; [] is shared by all and stays."""
    if not array.ndim:
        return array
    changed = np.array(array)
    changed[rows] = values
    return jax.device_put(changed, array.sharding)
