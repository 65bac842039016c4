"""Training episodes as files, as the TensorFlow gist's monitor records them."""

from pathlib import Path

import numpy as np

from ddpg_jax.algorithm.types import Transition
from ddpg_jax.population.blocks import Population
from ddpg_jax.results.history import Episodes


class Recorder:
    """Writes every n-th episode of each agent to `agent-…/episode-….npz`."""

    def __init__(self, folder: Path, every: int, num_envs: int = 1) -> None:
        self._folder, self._every, self._num_envs = folder, every, num_envs

    def record(self, ended: Episodes, population: Population, first_agent: int) -> None:
        """Records the episodes of the last chunk whose number is a multiple of `every`.

        They are read from the replay, where their transitions still lie: `observation` [T, O], `action` [T, A] as
        stored, `reward` [T].
        """
        for agent, episode, last_step, _, length, _ in zip(*ended, strict=True):
            if episode % self._every == 0:
                steps = population.transitions(agent - first_agent, last_step - length * self._num_envs, last_step)
                transitions = Transition(*(field[self._num_envs - 1 :: self._num_envs] for field in steps))
                path = self._folder / f"agent-{agent:06d}" / f"episode-{episode:06d}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(
                    path,
                    observation=transitions.observation,
                    action=transitions.action,
                    reward=transitions.reward,
                )
