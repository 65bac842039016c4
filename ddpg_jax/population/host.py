"""Agents whose environments step on the host: one call of the compiled program per step, block after block.

While the devices advance one block, the host steps the environments of the next.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ddpg_jax.algorithm import outside
from ddpg_jax.algorithm.environment import Environment, HostEnvironments, HostEpisodes
from ddpg_jax.algorithm.evaluation import GreedyEpisodes
from ddpg_jax.algorithm.loop import Setup, unpack_log
from ddpg_jax.algorithm.types import Hyperparameters, StepLog, TrainState
from ddpg_jax.population.blocks import Population, on_host, spread
from ddpg_jax.population.programs import Programs


class HostPopulation(Population):
    """The agents of this process on its devices, with their environments on the host."""

    def __init__(
        self, programs: Programs, keys: jax.Array, hyperparameters: Hyperparameters, *, setup: Setup, **sizes: Any
    ) -> None:
        """Makes new agents (see `Population`), and environments for them."""
        super().__init__(programs, keys, hyperparameters, **sizes)
        assert setup.environment.outside is not None
        limits = (setup.environment.max_steps, setup.exploration.max_steps or setup.environment.max_steps)
        self._setup, self._num_envs = setup, setup.num_envs
        self._episodes = setup.environment.outside.episodes()
        self._environments: list[HostEnvironments] = [
            setup.environment.outside.environments(self._num_held(index) * setup.num_envs, min(limits))
            for index in range(len(self.states))
        ]
        self._actions: list[jax.Array] = []

    def advance(self, num_steps: int, on_progress: Callable[[int], None] = lambda agent_steps: None) -> StepLog:
        """Trains every agent for `num_steps` steps of the loop (see `Population.advance`)."""
        if not self._actions:
            self._begin()
        rows: list[list[jax.Array]] = [[] for _ in self.states]
        for _ in range(num_steps):
            for index, environments in enumerate(self._environments):
                results = outside.pack(environments.step(self._to_environments(index)))
                received = spread(self._filled(index, results), self._programs.stacked)
                self.states[index], self._actions[index], row = self._programs.train(
                    self.states[index], received, self._hyperparameters[index]
                )
                rows[index].append(row)
        on_progress(num_steps * self.num_agents)
        logs = [np.stack([on_host(row) for row in each], axis=1) for each in rows]
        return unpack_log(np.concatenate(logs)[: self.num_agents])

    def restore(self, state_of: Callable[[np.ndarray, TrainState], TrainState]) -> None:
        """Continues from other states (see `Population.restore`), in new episodes."""
        super().restore(state_of)
        self._actions = []

    def replace(self, states: Any) -> None:
        """Continues from other states (see `Population.replace`), in new episodes."""
        super().replace(states)
        self._actions = []

    def evaluate(self, starts: Any) -> GreedyEpisodes:
        """Runs greedy episodes, NumPy arrays [N, S], from the start states that all agents share."""
        blocks = [self._evaluate_block(index, starts[0]) for index in range(len(self.states))]
        joined = (np.concatenate(arrays)[: self.num_agents] for arrays in zip(*blocks, strict=True))
        return GreedyEpisodes(*joined)

    def _evaluate_block(self, index: int, starts: Any) -> GreedyEpisodes:
        agents = self._num_held(index)

        def act(observations: np.ndarray) -> np.ndarray:
            seen = spread(self._padded(index, observations), self._programs.stacked)
            return on_host(self._programs.evaluate(self.states[index].agent, seen))[:agents]

        return greedy_episodes(act, self._episodes, starts, agents, self._setup.environment)

    def _begin(self) -> None:
        """Begins new episodes in all environments, and chooses the first actions."""
        assert self._programs.begin is not None
        for index, environments in enumerate(self._environments):
            state = self.states[index]
            agents = self._num_held(index)
            seeds = on_host(state.environment.seed)[:agents].reshape(-1)
            # A resumed run begins other episodes than the run that it continues.
            observations = environments.reset((seeds.astype(np.uint64) + int(state.step)) % 2**32)
            own = self._filled(index, observations).reshape(-1, *state.observation.shape[1:])
            begun = spread(own, self._programs.stacked)
            self.states[index], action = self._programs.begin(state, begun, self._hyperparameters[index])
            self._actions.append(action)

    def _to_environments(self, index: int) -> np.ndarray:
        """Returns the actions of a block for its environments; those of an agent that has diverged are 0."""
        actions = on_host(self._actions[index])[: self._num_held(index)]
        return np.nan_to_num(actions.reshape(-1, actions.shape[-1]))

    def _filled(self, index: int, results: np.ndarray) -> np.ndarray:
        """Returns what n E environments of a block's agents gave as [block, E, ...]."""
        return self._padded(index, results.reshape(self._num_held(index), self._num_envs, -1))

    def _num_held(self, index: int) -> int:
        """Returns the number of a block's agents that have environments: one where all only fill up."""
        return max(1, len(self._agents_of(index)))

    def _padded(self, index: int, array: np.ndarray) -> np.ndarray:
        """Returns an array [n, ...] with copies of the last entry for the agents that only fill up the block."""
        missing = self._size - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def greedy_episodes(
    act: Callable[[np.ndarray], np.ndarray],
    episodes: HostEpisodes,
    starts: Any,
    num_agents: int,
    environment: Environment,
) -> GreedyEpisodes:
    """Runs greedy episodes on the host, NumPy arrays [N, S] (see `evaluation.greedy_episodes`).

    Args:
        act: (observations [N, S, O]) -> actions [N, S, A].
        episodes: what they run in.
        starts: S start states that all agents share.
        num_agents: N.
        environment: the task.
    """
    observations = episodes.begin(starts, num_agents)
    total, at_bounds, length = (np.zeros(observations.shape[:2]) for _ in range(3))
    alive = np.ones(observations.shape[:2], bool)
    low, high = np.asarray(environment.low, np.float32), np.asarray(environment.high, np.float32)
    for _ in range(environment.max_steps):
        if not alive.any():
            break
        actions = act(observations)
        step = episodes.step(np.nan_to_num(actions), alive)
        total += np.where(alive, step.reward, 0.0)
        at_bounds += np.where(alive, np.mean((actions == low) | (actions == high), axis=-1), 0.0)
        length += alive
        observations = np.asarray(step.observation)
        alive = alive & ~np.asarray(step.terminated | step.truncated)
    return GreedyEpisodes(total.astype(np.float32), (at_bounds / length).astype(np.float32))


def make_population(
    setup: Setup, programs: Programs, keys: jax.Array, hyperparameters: Hyperparameters, **sizes: Any
) -> Population:
    """Makes the agents of a setup (see `Population`), wherever their environments step."""
    if setup.environment.outside is None:
        return Population(programs, keys, hyperparameters, **sizes)
    return HostPopulation(programs, keys, hyperparameters, setup=setup, **sizes)
