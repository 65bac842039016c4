"""Actors and critics that a finished run has kept in `snapshots/`, at several steps of training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.config import Config
from ddpg_jax.sweep import label
from ddpg_jax.training.policy import Policy, read_weights
from ddpg_jax.training.result import Result
from ddpg_jax.training.setup_factory import make_algorithm


class Snapshot(NamedTuple):
    """The actors and critics of n agents at one step of training."""

    env_steps: Any  # environment steps that each agent has made
    actors: Any  # the actors' variables [n, ...]
    critics: Any  # the critics' variables [n, ...]


@dataclass(frozen=True)
class Trained:
    """The agents of one configuration of a finished run."""

    title: str  # preset, environment and, in a sweep, the values of the configuration
    config: Config
    policy: Policy  # of all agents that have networks of these shapes
    algorithm: Algorithm
    agents: tuple[int, ...]  # the numbers of the configuration's agents that have not diverged
    files: dict[int, Path]  # the weights files, by the environment steps of the snapshot, in ascending order

    def load(self, env_steps: int, agents: tuple[int, ...]) -> Snapshot:
        """Returns some agents, by their numbers, at a snapshot; raises ValueError as `read_weights`."""
        policy, algorithm = self.policy, self.algorithm
        observation = jax.ShapeDtypeStruct((1, policy.observation_size), jnp.float32)
        action = jax.ShapeDtypeStruct((1, len(algorithm.actor.low)), jnp.float32)
        expected = {
            "actor": jax.eval_shape(algorithm.actor.init, jax.random.key(0), observation),
            "critic": jax.eval_shape(algorithm.critic.init, jax.random.key(0), observation, action),
        }
        diverged = [policy.agents[index] for index in policy.diverged_agents]
        weights = read_weights(self.files[env_steps], expected, policy.agents, diverged)
        rows = np.array([policy.agents.index(agent) for agent in agents])
        return Snapshot(env_steps, *(jax.tree.map(lambda x: x[rows], weights[name]) for name in ("actor", "critic")))


def load_trained(result: Result, config: int) -> Trained:
    """Returns the agents of a configuration, by its number, of a run that has been read from a folder.

    Raises:
        ValueError: if there are no snapshots, no such configuration, or no agent of it that has not diverged.
    """
    folder, seeds = result.folder, result.seeds
    if config >= len(result.configs):
        raise ValueError(f"config is {config}, but must be at most {len(result.configs) - 1}")
    if not result.policies:
        raise ValueError(f"run_folder is {folder}, but must be of networks that Config describes, to draw its agents")
    first, swept = seeds.start + config * len(seeds), result.configs[config]
    shape, policy = next((i, policy) for i, policy in enumerate(result.policies) if first in policy.agents)
    name = f"shape-{shape}/weights.safetensors" if len(result.policies) > 1 else "weights.safetensors"
    paths = folder.glob("snapshots/[0-9]*") if folder else ()
    files = dict(sorted((int(path.name), path / name) for path in paths))
    if not files:
        raise ValueError(f"run_folder is {folder}, but must have snapshots/<environment steps>: it has none")
    diverged = {policy.agents[index] for index in policy.diverged_agents}
    agents = tuple(agent for agent in range(first, first + len(seeds)) if agent not in diverged)
    if not agents:
        raise ValueError(f"config is {config}, but must be one with an agent that has not diverged")
    title = f"{result.details['preset']} on {policy.env_id}{f' ({label(swept.values)})' if swept.values else ''}"
    algorithm = make_algorithm(swept.config, policy.actor.low, policy.actor.high)
    return Trained(title, swept.config, policy, algorithm, agents, files)
