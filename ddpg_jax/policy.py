"""What acts, on disk: weights as safetensors, which hold numbers and names and nothing that runs."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError

from ddpg_jax.assembly import make_algorithm
from ddpg_jax.config import Config
from ddpg_jax.environment import Environment
from ddpg_jax.networks import Actor

FORMAT = 1
"""Version of the files in `policy/`; a newer one is refused."""


@dataclass(frozen=True)
class Policy:
    """The greedy policies of N agents: `policy(observations [B, O])` gives their actions [N, B, A].

    Observations may be NumPy or JAX arrays; actions are in the environment's units and within its bounds.
    """

    env_id: str
    observation_size: int
    actor: Actor
    variables: Any
    """The actors' parameters, and normalisation statistics where there are any, with a leading axis N."""

    @property
    def num_agents(self) -> int:
        """N."""
        return jax.tree.leaves(self.variables)[0].shape[0]

    def __call__(self, observations: Any) -> jax.Array:
        """Actions [N, B, A] of all agents.

        Raises:
            ValueError: if the observations are not [B, O].
        """
        if np.ndim(observations) != 2 or np.shape(observations)[1] != self.observation_size:
            raise ValueError(
                f"observations have shape {np.shape(observations)}, but must be [B, {self.observation_size}]"
            )
        return _act(self.variables, jnp.asarray(observations, jnp.float32), actor=self.actor)

    def each(self, observations: Any) -> jax.Array:
        """Actions [N, B, A] of all agents, each in a situation of its own: observations [N, B, O].

        Raises:
            ValueError: if the observations are not [N, B, O].
        """
        shape = np.shape(observations)
        if len(shape) != 3 or shape[0] != self.num_agents or shape[2] != self.observation_size:
            raise ValueError(
                f"observations have shape {shape}, but must be [{self.num_agents}, B, {self.observation_size}]"
            )
        return _act_each(self.variables, jnp.asarray(observations, jnp.float32), actor=self.actor)


@partial(jax.jit, static_argnames="actor")
def _act_each(variables: Any, observations: jax.Array, *, actor: Actor) -> jax.Array:
    return jax.vmap(lambda one, seen: jnp.asarray(actor.apply(one, seen)))(variables, observations)


@partial(jax.jit, static_argnames="actor")
def _act(variables: Any, observations: jax.Array, *, actor: Actor) -> jax.Array:
    return jax.vmap(lambda one: jnp.asarray(actor.apply(one, observations)))(variables)


def save_policy(folder: Path, config: Config, environment: Environment, *, diverged_agents: list[int]) -> None:
    """Writes what the weights in `folder` (see `save_weights`) mean, and which agents' are known not to be finite."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT,
        "observation_size": environment.observation_size,
        "low": list(environment.low),
        "high": list(environment.high),
        "diverged_agents": diverged_agents,
        "config": config.to_dict(),
    }
    (folder / "policy.json").write_text(json.dumps(description, indent=2) + "\n")


def save_weights(folder: Path, first_agent: int, tree: Any) -> None:
    """Writes a tree of arrays [n, ...] of the agents from `first_agent` on."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}
    safetensors.numpy.save_file(flat, folder / f"agents-{first_agent:06d}.safetensors")


def load_weights(folder: Path) -> Any:
    """The tree of arrays [N, ...] that `save_weights` wrote into `folder`.

    Raises:
        ValueError: if there are none, or a file is damaged.
    """
    files = sorted(folder.glob("agents-*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no weights (agents-*.safetensors)")
    try:
        parts = [safetensors.numpy.load_file(file) for file in files]
        flat = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{folder} has damaged weights: {error}") from error
    return unflatten_dict(flat, sep="/")


def load_policy(run_folder: str | Path) -> Policy:
    """The policies of all agents of a finished run.

    Args:
        run_folder: what `python -m ddpg_jax.run` wrote, or its folder `policy`.

    Raises:
        ValueError: if there is no policy, it is damaged, of a newer format, of wrong shapes or not finite.
    """
    folder = Path(run_folder)
    folder = folder / "policy" if (folder / "policy").is_dir() else folder
    if not (folder / "policy.json").is_file():
        raise ValueError(f"{run_folder} has no policy (policy/policy.json): is it a finished run?")
    try:
        description = json.loads((folder / "policy.json").read_text())
        if description["format"] > FORMAT:
            raise ValueError(f"its format is {description['format']}, newer than {FORMAT}: update ddpg_jax")
        config = Config.from_dict(description["config"])
        low, high = tuple(description["low"]), tuple(description["high"])
        observation_size, diverged = int(description["observation_size"]), list(description["diverged_agents"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'policy.json'} cannot be read: {error}") from error
    actor = make_algorithm(config, low, high).actor
    variables = load_weights(folder)
    _check(variables, actor, observation_size, diverged, folder)
    return Policy(config.env_id, observation_size, actor, jax.tree.map(jnp.asarray, variables))


def _check(variables: Any, actor: Actor, observation_size: int, diverged: list[int], folder: Path) -> None:
    """Refuses weights that are not the actor's, or not finite in an agent that is not known to have diverged."""
    example = jnp.zeros((1, observation_size))
    expected = flatten_dict(jax.eval_shape(partial(actor.init, jax.random.key(0)), example), sep="/")
    found = flatten_dict(variables, sep="/")
    for name in sorted(set(expected) | set(found)):
        here = found[name].shape[1:] if name in found else "missing"
        there = expected[name].shape if name in expected else "not in the network"
        if here != there:
            raise ValueError(f"{folder}: weights {name} have shape {here}, but must be {there}")
        finite = np.isfinite(found[name]).reshape(len(found[name]), -1).all(axis=1)
        agents = sorted(set(np.flatnonzero(~finite).tolist()) - set(diverged))
        if agents:
            raise ValueError(f"{folder}: weights {name} are not finite in agents {agents}")
