"""What acts, on disk: weights as safetensors, which hold numbers and names and nothing that runs."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.networks import Actor
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_algorithm

FORMAT = 1
"""Version of the files in `policy/`; a newer one is refused."""


@dataclass(frozen=True)
class Policy:
    """The greedy policies of N agents: `policy(observations [B, O])` gives their actions [N, B, A].

    Observations may be NumPy or JAX arrays; actions are in the environment's units and within its bounds.
    """

    env_id: str
    """Where they were trained."""
    observation_size: int
    """O."""
    actor: Actor
    """The network that all of them are."""
    variables: Any
    """The actors' parameters, and normalisation statistics where there are any, with a leading axis N."""
    diverged_agents: tuple[int, ...] = ()
    """Those whose numbers are not finite, or were not when they were last trained: do not use them."""
    best_agent: int | None = None
    """The agent with the highest return from start states other than those that the run reports, if it is known."""

    @property
    def num_agents(self) -> int:
        """N."""
        return jax.tree.leaves(self.variables)[0].shape[0]

    def select(self, agents: int | Sequence[int]) -> "Policy":
        """The policies of some of the agents, counted from 0, in that order.

        Raises:
            ValueError: if there is no such agent.
        """
        numbers = [agents] if isinstance(agents, int) else list(agents)
        if not numbers or not all(0 <= number < self.num_agents for number in numbers):
            raise ValueError(f"agents are {numbers}, but must be of 0 to {self.num_agents - 1}")
        chosen = np.array(numbers)
        diverged = tuple(i for i, number in enumerate(numbers) if number in self.diverged_agents)
        best = numbers.index(self.best_agent) if self.best_agent in numbers else None
        variables = jax.tree.map(lambda x: x[chosen], self.variables)
        return replace(self, variables=variables, diverged_agents=diverged, best_agent=best)

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


def save_policy(
    folder: Path,
    config: Config,
    environment: Environment,
    *,
    num_agents: int,
    diverged_agents: list[int],
    best_agent: int | None = None,
) -> None:
    """Writes what the weights in `folder` (see `save_weights`) mean, which agents' are known not to be sound, and which
    agent is the best, if that is known.
    """
    description = {
        "format": FORMAT,
        "num_agents": num_agents,
        "observation_size": environment.observation_size,
        "low": list(environment.low),
        "high": list(environment.high),
        "diverged_agents": diverged_agents,
        "best_agent": best_agent,
        "config": config.to_dict(),
    }
    write_whole(folder / "policy.json", (json.dumps(description, indent=2) + "\n").encode())


def save_weights(folder: Path, first_agent: int, tree: Any) -> None:
    """Writes a tree of arrays [n, ...] of the agents from `first_agent` on, and removes older files of theirs."""
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}
    path = _weights_path(folder, first_agent)
    write_whole(path, safetensors.numpy.save(flat))
    num_agents = len(next(iter(flat.values())))
    for other in folder.glob("agents-*.safetensors"):
        if path.name < other.name < _weights_path(folder, first_agent + num_agents).name:
            other.unlink()


def _weights_path(folder: Path, first_agent: int) -> Path:
    return folder / f"agents-{first_agent:06d}.safetensors"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all: beside its place, then renamed.

    Raises:
        OSError: names the file.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written: {error.strerror}") from error


def load_weights(folder: Path) -> Any:
    """The tree of arrays [N, ...] that `save_weights` wrote into `folder`.

    Raises:
        ValueError: if there are none, one is missing, or a file is damaged.
    """
    files = sorted(folder.glob("agents-*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no weights (agents-*.safetensors)")
    parts: list[dict[str, np.ndarray]] = []
    num_agents = 0
    for file in files:
        if file != _weights_path(folder, num_agents):
            raise ValueError(f"{folder} has no weights of agent {num_agents}")
        try:
            parts.append(safetensors.numpy.load_file(file))
            sizes = {len(array) for array in parts[-1].values()}
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        if len(sizes) != 1 or parts[-1].keys() != parts[0].keys():
            raise ValueError(f"{file} is damaged: its arrays do not belong together")
        num_agents += sizes.pop()
    try:
        return unflatten_dict({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, sep="/")
    except (ValueError, TypeError, IndexError) as error:  # shapes or names that do not go together
        raise ValueError(f"{folder} has damaged weights: {error}") from error


def load_policy(run_folder: str | Path, agents: Literal["all", "best"] | int | Sequence[int] = "all") -> Policy:
    """The policies of the agents of a finished run.

    Args:
        run_folder: what `python -m ddpg_jax.run` wrote, or its folder `policy`; of a sweep over what shapes the
            networks one of the folders `policy/part-0`, `policy/part-1`, …
        agents: all of them; the best, chosen on start states other than those that the run reports; or by number.

    Raises:
        ValueError: if there is no policy, it is damaged, of a newer format, of wrong shapes or not finite.
    """
    folder = Path(run_folder)
    folder = folder / "policy" if (folder / "policy").is_dir() else folder
    parts = sorted(folder.glob("part-*/policy.json"))
    if parts:
        there = ", ".join(str(file.parent) for file in parts)
        raise ValueError(f"{run_folder} has networks of {len(parts)} shapes: load {there}")
    if not (folder / "policy.json").is_file():
        raise ValueError(f"{run_folder} has no policy (policy/policy.json): is it a finished run?")
    try:
        description = json.loads((folder / "policy.json").read_bytes())
        if description["format"] > FORMAT:
            raise ValueError(f"its format is {description['format']}, newer than {FORMAT}: update ddpg_jax")
        config = Config.from_dict(description["config"])
        low, high = _bounds(description["low"]), _bounds(description["high"])
        num_agents, observation_size = int(description["num_agents"]), int(description["observation_size"])
        diverged = tuple(int(agent) for agent in description["diverged_agents"])
        best = description.get("best_agent")
        best = None if best is None else int(best)
        if not (0 < len(low) == len(high) and observation_size > 0):
            raise ValueError(f"{observation_size} observations and actions from {low} to {high} make no sense")
        actor = make_algorithm(config, low, high).actor
        example = jax.ShapeDtypeStruct((1, observation_size), jnp.float32)
        expected = flatten_dict(jax.eval_shape(actor.init, jax.random.key(0), example), sep="/")
    except KeyError as error:
        raise ValueError(f"{folder / 'policy.json'} cannot be read: it has no {error}") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{folder / 'policy.json'} cannot be read: {error}") from error
    variables = load_weights(folder)
    check_weights(variables, expected, num_agents, diverged, folder)
    policy = Policy(config.env_id, observation_size, actor, jax.tree.map(jnp.asarray, variables), diverged, best)
    if isinstance(agents, str):
        if agents == "best" and best is None:
            raise ValueError(f"{folder} names no best agent: all have diverged, or it was written by an older version")
        if agents not in ("all", "best"):
            raise ValueError(f"agents is {agents!r}, but must be 'all', 'best' or numbers")
        return policy if agents == "all" else policy.select(best or 0)
    return policy.select(agents)


def _bounds(values: Any) -> tuple[float, ...]:
    bounds = tuple(float(value) for value in values)
    if not np.isfinite(bounds).all():
        raise ValueError(f"the bounds {bounds} are not finite")
    return bounds


def check_weights(variables: Any, expected: Any, num_agents: int, diverged: tuple[int, ...], folder: Path) -> None:
    """Refuses weights that are not the networks', or not finite in an agent that is not known to have diverged.

    Args:
        variables: a tree of arrays [N, ...].
        expected: shapes and dtypes of one agent's, by their names with slashes between them.
        num_agents: N.
        diverged: agents whose weights need not be finite.
        folder: where the weights are from.

    Raises:
        ValueError: names the folder, the weights and what they must be.
    """
    found = flatten_dict(variables, sep="/")
    for name in sorted(set(expected) | set(found)):
        here = f"{found[name].dtype}{list(found[name].shape)}" if name in found else "missing"
        there = f"float32{[num_agents, *expected[name].shape]}" if name in expected else "not there"
        if here != there:
            raise ValueError(f"{folder}: weights {name} are {here}, but must be {there}")
        finite = np.isfinite(found[name]).reshape(num_agents, -1).all(axis=1)
        agents = sorted(set(np.flatnonzero(~finite).tolist()) - set(diverged))
        if agents:
            raise ValueError(f"{folder}: weights {name} are not finite in agents {agents}")
