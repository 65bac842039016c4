"""Agents whose environments step on the host: one call of the compiled program per step and block.

While the devices advance the blocks, the host steps the environments of those that are ready.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ddpg_jax.algorithm import host_env
from ddpg_jax.algorithm.evaluation import GreedyEpisodes, Starts
from ddpg_jax.algorithm.loop import unpack_log
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import Hyperparameters, StepLog, UpdateInfo
from ddpg_jax.environments.host import HostEnvFailure, host_greedy_episodes
from ddpg_jax.training.trainer import Read, Trainer


class HostTrainer(Trainer):
    """N agents, each with E environments on the host."""

    def __init__(self, setup: Setup, keys: jax.Array, hyperparameters: Hyperparameters, **options: Any) -> None:
        """Makes new agents (see `Trainer`), and environments for training and for evaluation."""
        super().__init__(setup, keys, hyperparameters, **options)
        host = setup.environment.host_env
        assert host is not None
        max_steps = min(setup.environment.max_steps, setup.exploration.max_steps or setup.environment.max_steps)
        num = self.num_agents * setup.num_envs
        self._envs = host.make(num, max_steps)
        self._evaluation_envs = host.make(num)
        self._actions: list[jax.Array] = []
        self._failure: HostEnvFailure | None = None

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()
        self._evaluation_envs.close()

    @property
    def failure(self) -> HostEnvFailure | None:
        """The error of an environment that ended the last `advance` early; the agents are at their last whole step."""
        return self._failure

    def _advance(self, num_steps: int, on_progress: Callable[[int], None]) -> StepLog:
        rows: list[list[jax.Array]] = []
        try:
            if not self._actions:
                self._begin()
            for _ in range(num_steps):
                received = self._step_environments()  # of all blocks first, so that all agents stay at the same step
                rows.append([self._train(block, received) for block in range(self._num_blocks)])
        except HostEnvFailure as error:
            self._failure = error
        on_progress(len(rows) * self.num_agents)
        if not rows:
            num_columns = len(UpdateInfo._fields) + 2 * self.setup.num_envs
            return unpack_log(np.zeros((self.num_agents, 0, num_columns), np.float32))
        return unpack_log(np.stack([self._gather(row) for row in rows], axis=1))

    def _begin(self) -> None:
        """Begins new episodes in all environments, and chooses the first actions."""
        assert self.programs.begin is not None
        seeds = self._gather([state.env.state.seed for state in self._states]).reshape(-1)
        # A resumed run begins other episodes than the run that it continues.
        seeds = (seeds.astype(np.uint64) + int(self._states[0].step)) % 2**32
        observations = self._by_agent(self._envs.begin(np.arange(len(seeds)), seeds.tolist()))
        for block, state in enumerate(self._states):
            begun = self._filled(block, observations).reshape(-1, *state.env.observation.shape[1:])
            begun = jax.device_put(begun, self.programs.stacked)
            self._states[block], action = self.programs.begin(state, begun, self._hyperparameters[block])
            self._actions.append(action)

    def _step_environments(self) -> np.ndarray:
        """Executes the actions that wait, and begins new episodes; returns the results [N, E, 2 O + 3]."""
        actions = self._gather(self._actions)
        actions = np.nan_to_num(actions.reshape(-1, actions.shape[-1]))  # an agent that has diverged has no others
        step = self._envs.step(actions, np.ones(len(actions), bool))
        observation = np.array(step.observation)
        ended = np.flatnonzero(np.asarray(step.terminated) | np.asarray(step.truncated))
        if len(ended):
            observation[ended] = self._envs.begin(ended, None)
        return self._by_agent(host_env.pack(step, observation))

    def _train(self, block: int, received: np.ndarray) -> jax.Array:
        """Stores the results, learns and chooses the next actions of a block; returns its row of the log."""
        results = jax.device_put(self._filled(block, received), self.programs.stacked)
        state, hyperparameters = self._states[block], self._hyperparameters[block]
        self._states[block], self._actions[block], row = self.programs.train(state, results, hyperparameters)
        return row

    def restore(self, read: Read) -> None:
        """Continues from what `saved_arrays` gave (see `Trainer.restore`), in new episodes."""
        super().restore(read)
        self._actions = []

    def _rearrange(self, *, learned: np.ndarray, env: np.ndarray, own: np.ndarray) -> None:
        # An environment on the host cannot be copied: where one would be, all begin new episodes.
        waiting = self._gather(self._actions)[own] if self._actions and (env == own).all() else None
        super()._rearrange(learned=learned, env=env, own=own)
        self._actions = [] if waiting is None else self._in_blocks(waiting)
        num_envs = self.setup.num_envs
        self._envs.keep((own[:, None] * num_envs + np.arange(num_envs)).ravel())
        self._evaluation_envs.keep(own)

    def evaluate(self, starts: Starts, on_progress: Callable[[float], None] = lambda episodes: None) -> GreedyEpisodes:
        """Runs greedy episodes from S start states that all agents share; returns NumPy arrays [N, S]."""
        what = self._evaluation_envs, starts, self.num_agents, self.setup.environment
        return host_greedy_episodes(self._act, *what, on_progress)

    def _act(self, observations: np.ndarray) -> np.ndarray:
        """Returns the greedy actions [N, W, A] for observations [N, W, O] of W <= S episodes at a time."""
        num = observations.shape[1]
        # The program's batch has always S rows, so that an action does not depend on how many episodes run together.
        padded = np.zeros((self.num_agents, self._episodes_at_once, observations.shape[2]), np.float32)
        actions = []
        for first in range(0, num, self._episodes_at_once):
            some = observations[:, first : first + self._episodes_at_once]
            padded[:, : some.shape[1]] = some
            blocks = [self._filled(block, padded) for block in range(self._num_blocks)]
            results = [
                self.programs.evaluate(state.agent, jax.device_put(block, self.programs.stacked))
                for state, block in zip(self._states, blocks, strict=True)
            ]
            actions.append(self._gather(results)[:, : some.shape[1]])
        return np.concatenate(actions, axis=1)

    def _by_agent(self, array: np.ndarray) -> np.ndarray:
        """Returns an array [N E, ...] as [N, E, ...]."""
        return array.reshape(self.num_agents, self.setup.num_envs, *array.shape[1:])

    def _filled(self, block: int, array: np.ndarray) -> np.ndarray:
        """Returns a block's entries of an array [N, ...], with copies of the last one that fill up the block."""
        agents = self._agents_of(block)
        return array[agents.start + np.arange(self._size).clip(max=len(agents) - 1)]


def make_trainer(setup: Setup, keys: jax.Array, hyperparameters: Hyperparameters, **options: Any) -> Trainer:
    """Makes the agents of a setup (see `Trainer`), wherever their environments step."""
    kind = Trainer if setup.environment.host_env is None else HostTrainer
    return kind(setup, keys, hyperparameters, **options)
