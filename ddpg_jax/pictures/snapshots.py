"""Actors and critics that a finished run has kept in `snapshots/`, at several steps of their training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_algorithm
from ddpg_jax.runs.policy import check_weights, load_policy, load_weights, policy_config
from ddpg_jax.runs.sweep import Point


class Snapshot(NamedTuple):
    """The actors and critics of n agents at one step of their training."""

    env_steps: Any
    """Environment steps that each agent has made."""
    actors: Any
    """The actors' variables [n, ...]."""
    critics: Any
    """The critics' variables [n, ...]."""


@dataclass(frozen=True)
class Trained:
    """A finished run, or a part of one whose agents have networks of the same shapes."""

    title: str
    """Preset and environment."""
    config: Config
    """Configuration of its first agent. All agents have it in common as far as it shapes their networks."""
    algorithm: Algorithm
    observation_size: int
    discounts: np.ndarray
    """[N] gamma of each agent."""
    finite_agents: tuple[int, ...]
    """The agents that have not diverged."""
    snapshots: tuple[tuple[int, Path], ...]
    """The environment steps of the snapshots, in their order, and the folders of their weights files."""

    @property
    def num_agents(self) -> int:
        """N."""
        return len(self.discounts)

    def load(self, number: int, agents: Sequence[int]) -> Snapshot:
        """Returns some agents at a snapshot.

        Args:
            number: the position of the snapshot in `snapshots`.
            agents: their numbers, counted from 0.

        Raises:
            ValueError: if the weights files are missing, damaged, of wrong shapes, or not finite in an agent that has
                not diverged.
        """
        env_steps, folder = self.snapshots[number]
        weights = load_weights(folder)
        observation = jax.ShapeDtypeStruct((1, self.observation_size), jnp.float32)
        action = jax.ShapeDtypeStruct((1, len(self.algorithm.actor.low)), jnp.float32)
        like = {
            "actor": jax.eval_shape(self.algorithm.actor.init, jax.random.key(0), observation),
            "critic": jax.eval_shape(self.algorithm.critic.init, jax.random.key(0), observation, action),
        }
        diverged = tuple(set(range(self.num_agents)) - set(self.finite_agents))
        check_weights(weights, flatten_dict(like, sep="/"), self.num_agents, diverged, folder)
        index = np.asarray(agents)
        chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), weights)
        return Snapshot(env_steps, chosen["actor"], chosen["critic"])


def load_trained(run_folder: Path, part: int | None) -> Trained:
    """Loads what a run has kept of its training.

    Args:
        run_folder: the folder of a finished run.
        part: which part of a sweep over the shapes of networks (`policy/part-0`, `policy/part-1`, …); None otherwise.

    Raises:
        ValueError: if it is not a finished run, is damaged, or has no such part.
    """
    if not any(run_folder.glob("policy/**/policy.json")):
        raise ValueError(
            f"run_folder is {run_folder}, but must be the folder of a finished run: it has no policy/policy.json"
        )
    name = _part_name(run_folder, part)
    policy = load_policy(run_folder / "policy" / name)
    config = policy_config(run_folder / "policy" / name)
    preset, discounts = _read_run(run_folder, name, policy.num_agents, config)
    folders = {int(folder.name): folder / name for folder in (run_folder / "snapshots").glob("[0-9]*")}
    if not folders:
        raise ValueError(f"run_folder is {run_folder}, but must have snapshots/<environment steps>: it has none")
    return Trained(
        title=f"{preset} on {config.env_id}",
        config=config,
        algorithm=make_algorithm(config, policy.actor.low, policy.actor.high),
        observation_size=policy.observation_size,
        discounts=discounts,
        finite_agents=tuple(sorted(set(range(policy.num_agents)) - set(policy.diverged_agents))),
        snapshots=tuple(sorted(folders.items())),
    )


def _part_name(run_folder: Path, part: int | None) -> str:
    """Returns the name of a part's folder; empty in a run that has one part."""
    there = sorted(int(file.parent.name.removeprefix("part-")) for file in run_folder.glob("policy/part-*/policy.json"))
    if there and part not in there:
        given = "not given" if part is None else part
        raise ValueError(
            f"part is {given}, but must be one of {', '.join(map(str, there))}: {run_folder} has networks of "
            f"{len(there)} shapes"
        )
    if part is not None and not there:
        raise ValueError(f"part is {part}, but must not be given: {run_folder} has networks of one shape")
    return "" if part is None else f"part-{part}"


def _read_run(run_folder: Path, part: str, num_agents: int, config: Config) -> tuple[str, np.ndarray]:
    """Returns the preset, and the discounts [N] of a part's agents, which can differ between the points of a sweep."""
    file = run_folder / "config.json"
    try:
        content = json.loads(file.read_bytes())
        preset, base = str(content["preset"]), Config.from_dict(content["config"])
        points = [Point.from_dict(point, base).config for point in content.get("points", [])]
        if not points:
            return preset, np.full(num_agents, config.gamma)
        gammas = np.repeat([point.gamma for point in points], content["num_agents"] // len(points))
        before = sum(
            json.loads(other.read_bytes())["num_agents"]
            for other in run_folder.glob("policy/part-*/policy.json")
            if int(other.parent.name.removeprefix("part-")) < int(part.removeprefix("part-") or 0)
        )
        return preset, gammas[before : before + num_agents]
    except KeyError as error:
        raise ValueError(f"{file} cannot be read: it has no {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
