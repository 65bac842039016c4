"""Training episodes as files, as the TensorFlow gist's monitor records them."""

from pathlib import Path

import numpy as np

from ddpg_jax.results.history import Episodes
from ddpg_jax.training.trainer import Trainer


def record_episodes(folder: Path, every: int, ended: Episodes, trainer: Trainer, agents: np.ndarray) -> None:
    """Writes every n-th episode of each agent to `agent-…/episode-….npz`.

    The episodes are read from the replay, where their transitions still are: `observation` [T, O], `action` [T, A] as
    stored, `reward` [T].

    Args:
        folder: where the agents' folders go.
        every: n.
        ended: the episodes that ended in the last chunk.
        trainer: of the agents.
        agents: [N] their numbers.
    """
    num_envs = trainer.setup.num_envs
    for agent, episode, last_step, _, length, _ in zip(*ended, strict=True):
        if episode % every == 0:
            index = int(np.flatnonzero(agents == agent)[0])
            # Rows of E environments lie in turn; the episode ended in the environment of its last row.
            steps = trainer.transitions(index, last_step - length * num_envs, last_step)
            observation, action, reward = (field[num_envs - 1 :: num_envs] for field in steps[:3])
            path = folder / f"agent-{agent:06d}" / f"episode-{episode:06d}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, observation=observation, action=action, reward=reward)
