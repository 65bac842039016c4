"""Trained actors on disk: their parameters as safetensors, which hold numbers and names and nothing that runs."""

import json
from collections.abc import Sequence
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
from ddpg_jax.processes.files import write_text, write_whole

FORMAT = 1
"""Version of the files in `policy/`; a newer one is refused."""


@dataclass(frozen=True)
class Policy:
    """The greedy policies of N agents, which have networks of the same shapes.

    `policy(observations [B, O])` returns the actions [N, B, A] of all agents, float32, in the environment's units and
    within its bounds. Observations may be NumPy or JAX arrays.
    """

    env_id: str
    """The environment in which the agents were trained."""
    observation_size: int
    """O."""
    actor: Actor
    """The actor network of all agents."""
    variables: Any
    """The actors' variables, a tree of arrays [N, ...]: `params`; where there are any, `batch_stats` and `moments`."""
    diverged_agents: tuple[int, ...] = ()
    """The agents that diverged in training: do not use them."""
    best_agent: int | None = None
    """The agent with the highest return from start states other than those that the run reports, if it is known."""

    @property
    def num_agents(self) -> int:
        """N."""
        return jax.tree.leaves(self.variables)[0].shape[0]

    def select(self, agents: int | Sequence[int]) -> "Policy":
        """Returns the policies of some of the agents.

        Args:
            agents: their numbers, counted from 0; the result has them in this order.

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
        """Returns the actions of all agents for the same observations.

        Args:
            observations: [B, O]

        Returns:
            [N, B, A] float32, in the environment's units.

        Raises:
            ValueError: if the observations have another shape.
        """
        if np.ndim(observations) != 2 or np.shape(observations)[1] != self.observation_size:
            raise ValueError(
                f"observations have shape {np.shape(observations)}, but must be [B, {self.observation_size}]"
            )
        return _act(self.variables, jnp.asarray(observations, jnp.float32), actor=self.actor)

    def each(self, observations: Any) -> jax.Array:
        """Returns the actions of all agents, each for its own observations.

        Args:
            observations: [N, B, O]

        Returns:
            [N, B, A] float32, in the environment's units.

        Raises:
            ValueError: if the observations have another shape.
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


def load_policy(run_folder: str | Path, agents: Literal["all", "best"] | int | Sequence[int] = "all") -> Policy:
    """Loads the policies of a finished run.

    Args:
        run_folder: the folder that `python -m ddpg_jax.run` has made, or `policy` in it; of a sweep over the shapes of
            networks, one of `policy/part-0`, `policy/part-1`, …
        agents: "all"; "best", the agent with the highest return from start states other than those that the run
            reports; or the numbers of agents, counted from 0.

    Returns:
        The policies, on JAX's default device.

    Raises:
        ValueError: if there is no policy, it is damaged, has a newer format or wrong shapes, or is not finite.
    """
    folder = _policy_folder(Path(run_folder))
    policy = _load_all(folder)
    if not isinstance(agents, str):
        return policy.select(agents)
    if agents not in ("all", "best"):
        raise ValueError(f"agents is {agents!r}, but must be 'all', 'best' or numbers")
    if agents == "all":
        return policy
    if policy.best_agent is None:
        raise ValueError(f"{folder} names no best agent: all have diverged, or it was written by an older version")
    return policy.select(policy.best_agent)


def policy_config(run_folder: str | Path) -> Config:
    """Returns the configuration with which the policies of a finished run were trained (see `load_policy`)."""
    return Config.from_dict(json.loads((_policy_folder(Path(run_folder)) / "policy.json").read_bytes())["config"])


def _policy_folder(run_folder: Path) -> Path:
    """Returns the folder with the policy of a run; raises ValueError if there is none, or one per part of a sweep."""
    folder = run_folder / "policy" if (run_folder / "policy").is_dir() else run_folder
    parts = sorted(folder.glob("part-*/policy.json"))
    if parts:
        there = ", ".join(str(file.parent) for file in parts)
        raise ValueError(f"{run_folder} has networks of {len(parts)} shapes: load {there}")
    if not (folder / "policy.json").is_file():
        raise ValueError(f"{run_folder} has no policy (policy/policy.json): is it a finished run?")
    return folder


def _load_all(folder: Path) -> Policy:
    """Returns the policies of all agents; raises ValueError as `load_policy`."""
    try:
        policy, num_agents = _described_policy(json.loads((folder / "policy.json").read_bytes()))
    except KeyError as error:
        raise ValueError(f"{folder / 'policy.json'} cannot be read: it has no {error}") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{folder / 'policy.json'} cannot be read: {error}") from error
    variables = load_weights(folder)
    check_weights(variables, flatten_dict(policy.variables, sep="/"), num_agents, policy.diverged_agents, folder)
    return replace(policy, variables=jax.tree.map(jnp.asarray, variables))


def _described_policy(description: Any) -> tuple[Policy, int]:
    """Returns what `policy.json` describes: a policy that has the shapes of one agent's variables, and N.

    A damaged description makes it raise ValueError, KeyError, TypeError, AttributeError or OverflowError.
    """
    if description["format"] > FORMAT:
        raise ValueError(f"its format is {description['format']}, newer than {FORMAT}: update ddpg_jax")
    config = Config.from_dict(description["config"])
    low, high = _bounds(description["low"]), _bounds(description["high"])
    observation_size, num_agents = int(description["observation_size"]), int(description["num_agents"])
    if not (0 < len(low) == len(high) and observation_size > 0):
        raise ValueError(f"{observation_size} observations and actions from {low} to {high} make no sense")
    actor = make_algorithm(config, low, high).actor
    example = jax.ShapeDtypeStruct((1, observation_size), jnp.float32)
    best = description.get("best_agent")
    policy = Policy(
        env_id=config.env_id,
        observation_size=observation_size,
        actor=actor,
        variables=jax.eval_shape(actor.init, jax.random.key(0), example),
        diverged_agents=tuple(int(agent) for agent in description["diverged_agents"]),
        best_agent=None if best is None else int(best),
    )
    return policy, num_agents


def _bounds(values: Any) -> tuple[float, ...]:
    bounds = tuple(float(value) for value in values)
    if not np.isfinite(bounds).all():
        raise ValueError(f"the bounds {bounds} are not finite")
    return bounds


def save_policy(
    folder: Path,
    config: Config,
    environment: Environment,
    *,
    num_agents: int,
    diverged_agents: list[int],
    best_agent: int | None = None,
) -> None:
    """Writes `policy.json`, which says what the weights files in the folder mean (see `save_weights`).

    Args:
        folder: where the weights files are.
        config: of the agents; the networks follow from it.
        environment: where the agents were trained.
        num_agents: N.
        diverged_agents: the agents that have diverged.
        best_agent: the best agent, if it is known.

    Raises:
        OSError: if the file cannot be written; the message names it.
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
    write_text(folder / "policy.json", json.dumps(description, indent=2) + "\n")


def save_weights(folder: Path, first_agent: int, tree: Any) -> None:
    """Writes a weights file of some agents, and removes older files of the same agents.

    Args:
        folder: where the file goes.
        first_agent: the number of the first of the n agents, which follow one another.
        tree: nested dictionaries of arrays [n, ...].

    Raises:
        OSError: if the file cannot be written; the message names it.
    """
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}
    path = _weights_path(folder, first_agent)
    write_whole(path, safetensors.numpy.save(flat))
    num_agents = len(next(iter(flat.values())))
    for other in folder.glob("agents-*.safetensors"):
        if path.name < other.name < _weights_path(folder, first_agent + num_agents).name:
            other.unlink()


def _weights_path(folder: Path, first_agent: int) -> Path:
    return folder / f"agents-{first_agent:06d}.safetensors"


def load_weights(folder: Path) -> Any:
    """Returns the nested dictionaries of arrays [N, ...] that `save_weights` wrote into a folder, of all its agents.

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


def check_weights(variables: Any, expected: Any, num_agents: int, diverged: tuple[int, ...], folder: Path) -> None:
    """Refuses variables that are not the networks', or not finite in an agent that is not known to have diverged.

    Args:
        variables: nested dictionaries of arrays [N, ...].
        expected: shapes and dtypes of one agent's variables, by their names with slashes between them.
        num_agents: N.
        diverged: the agents whose variables need not be finite.
        folder: where the variables are from.

    Raises:
        ValueError: names the folder, the variables and what they must be.
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
