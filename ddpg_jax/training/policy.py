"""Trained actors and their files: `policy.json`, and the parameters as safetensors, which hold nothing that runs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError

from ddpg_jax.algorithm.networks import Actor
from ddpg_jax.config import Config
from ddpg_jax.training.files import write_text, write_whole
from ddpg_jax.training.setup_factory import make_algorithm

FORMAT = 1
"""Version of a policy's files; a newer one is refused."""

WEIGHTS = "actors.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """The greedy policies of N agents, whose networks have the same shapes.

    `policy(observations)` returns the actions of all agents. `policy[i]` is the policy of agent i, counted from 0;
    a slice, an array of numbers or a mask gives that of several agents; `policy.best` is that of the best one.
    """

    env_id: str
    """The environment in which the agents were trained."""
    observation_size: int
    """O."""
    actor: Actor
    """The actor network of all agents."""
    variables: Any
    """The actors' variables, a tree of arrays [N, ...]: `params`, and what else the network has."""
    diverged_agents: tuple[int, ...] = ()
    """The agents, counted from 0 in this policy, that diverged in training: do not use them."""
    best_agent: int | None = None
    """The agent with the highest return from start states other than those that the run reports, if it is known."""
    agents: tuple[int, ...] = ()
    """[N] the agents' numbers in their run; default: 0 to N - 1."""
    config: Config | None = None
    """The configuration of the (first) agent, if it is known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", jax.tree.map(jnp.asarray, self.variables))
        object.__setattr__(self, "agents", tuple(map(int, self.agents)) or tuple(range(self.num_agents)))

    @property
    def num_agents(self) -> int:
        """N."""
        return jax.tree.leaves(self.variables)[0].shape[0]

    def __len__(self) -> int:
        return self.num_agents

    def __repr__(self) -> str:
        agents = f"{self.num_agents} agent{'s' * (self.num_agents != 1)}"
        return f"Policy({agents}, {self.env_id}, {self.observation_size} -> {len(self.actor.low)})"

    def __getitem__(self, index: Any) -> "Policy":
        """Returns the policy of some agents; `index` is what NumPy accepts for an array [N], and fails as there."""
        chosen = np.ravel(np.arange(self.num_agents)[index]).tolist()
        if not chosen:
            raise IndexError(f"{index!r} chooses no agent of {self!r}")
        return replace(
            self,
            variables=jax.tree.map(lambda leaf: leaf[np.array(chosen)], self.variables),
            diverged_agents=tuple(i for i, agent in enumerate(chosen) if agent in self.diverged_agents),
            best_agent=chosen.index(self.best_agent) if self.best_agent in chosen else None,
            agents=tuple(self.agents[agent] for agent in chosen),
        )

    @cached_property
    def best(self) -> "Policy":
        """The policy of the best agent; raises ValueError if it is not known."""
        if self.best_agent is None:
            raise ValueError(f"{self!r} names no best agent: all diverged, or none was chosen. Take one: policy[0]")
        return self[self.best_agent]

    def __call__(self, observations: Any) -> jax.Array:
        """Returns the actions [N, ..., A] of all agents for the same observations, any array-like [..., O].

        They are float32 in the environment's units, within its bounds. Another shape is a ValueError.
        """
        return _act(self.variables, self._checked(observations), actor=self.actor, each=False)

    def each(self, observations: Any) -> jax.Array:
        """Returns the actions [N, B, A] of all agents, each for its own observations [N, B, O] (see `__call__`)."""
        seen = self._checked(observations)
        if len(seen) != self.num_agents or seen.ndim == 1:
            rule = f"[{self.num_agents}, ..., {self.observation_size}]"
            raise ValueError(f"observations have shape {seen.shape}, but must be {rule}")
        return _act(self.variables, seen, actor=self.actor, each=True)

    def predict(self, observation: Any) -> np.ndarray:
        """Returns the action [..., A] of one agent, the best one of several, for `step` of a Gymnasium environment.

        The observation is any array-like [..., O]; actions are float32, inside the bounds even where those are float64.

        Raises:
            ValueError: if the observation has another shape, the best agent is not known, or the agent diverged.
        """
        if self.num_agents > 1:
            return self.best.predict(observation)
        if self.diverged_agents:
            raise ValueError(f"agent {self.agents[0]} diverged in training, so it has no actions: choose another one")
        return np.clip(np.asarray(self(observation))[0], *bounds_within_float32(self.actor))

    def save(self, folder: str | Path) -> None:
        """Writes the policy into a folder, for `load_policy`; raises OSError, which names the file."""
        write_policy(Path(folder), self)

    def _checked(self, observations: Any) -> Any:
        """Returns observations [..., O] as a float32 array, of JAX if they are one."""
        try:
            seen = (jnp if isinstance(observations, jax.Array) else np).asarray(observations, np.float32)
        except (TypeError, ValueError) as error:  # lists of unequal lengths, texts
            raise ValueError(f"observations are {type(observations).__name__}, but must be numbers: {error}") from error
        if seen.ndim < 1 or seen.shape[-1] != self.observation_size:
            rule = f"[{self.observation_size}] or [..., {self.observation_size}]"
            raise ValueError(f"observations have shape {seen.shape}, but must be {rule}")
        return seen


@partial(jax.jit, static_argnames=("actor", "each"))
def _act(variables: Any, observations: jax.Array, *, actor: Actor, each: bool) -> jax.Array:
    """Returns actions [N, ..., A] for observations [..., O], or with `each` [N, ..., O]."""
    # A user's own actor may exceed the bounds; evaluations clip its actions, too.
    low, high = (jnp.asarray(bound, jnp.float32)[None] for bound in (actor.low, actor.high))

    def act(one: Any, seen: jax.Array) -> jax.Array:
        actions = jnp.asarray(actor.apply(one, seen.reshape(-1, seen.shape[-1])), jnp.float32)
        return jnp.clip(actions, low, high).reshape(*seen.shape[:-1], low.size)

    return jax.vmap(act, (0, 0 if each else None))(variables, observations)


@lru_cache
def bounds_within_float32(actor: Actor) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds rounded inwards: the float32 next to 0.1 is above 0.1, outside of a float64 space."""
    low, high = np.array(actor.low, np.float32), np.array(actor.high, np.float32)
    low = np.where(low < np.asarray(actor.low), np.nextafter(low, np.float32(np.inf)), low)
    return low, np.where(high > np.asarray(actor.high), np.nextafter(high, np.float32(-np.inf)), high)


def _indices(agents: int | Sequence[int], known: Sequence[int]) -> list[int]:
    """Returns where agents are among the known numbers; raises ValueError if one is not there."""
    numbers = np.atleast_1d(agents).tolist()
    if not numbers or not set(numbers) <= set(known):
        rule = f"{known[0]} to {known[-1]}" if set(known) == set(range(known[0], known[-1] + 1)) else f"{list(known)}"
        raise ValueError(f"agents is {agents}, but must be numbers of {rule}")
    return [known.index(number) for number in numbers]


# Files


def load_policy(
    folder: str | Path, agents: Literal["all", "best"] | int | Sequence[int] = "all", *, actor: Actor | None = None
) -> Policy:
    """Loads the policies of a finished run, or what `Policy.save` wrote.

    Args:
        folder: the run folder, `policy` in it (`policy/shape-0`, … of a sweep over network shapes), or that of `save`.
        agents: "all"; "best" (see `Policy.best_agent`); or numbers of agents, as in the run's tables.
        actor: the network, where it is not the one that the configuration describes.

    Returns:
        The policies, on JAX's default device.

    Raises:
        ValueError: if there is no policy, it is damaged, has a newer format or other shapes, or is not finite.
    """
    path = Path(folder)
    shapes = policy_folders(path)
    if shapes[0].name.startswith("shape-") and shapes[0] != path:
        raise ValueError(f"{path} has networks of {len(shapes)} shapes: load one of {', '.join(map(str, shapes))}")
    policy = read_policy(shapes[0], actor)
    if isinstance(agents, str):
        if agents not in ("all", "best"):
            raise ValueError(f"agents is {agents!r}, but must be all, best or the numbers of agents")
        return policy if agents == "all" else policy.best
    return policy[_indices(agents, policy.agents)]


def policy_folders(run_folder: Path) -> list[Path]:
    """Returns the folder of each policy of a run, one per shape of network; raises ValueError if there is none."""
    folder = run_folder / "policy" if (run_folder / "policy").is_dir() else run_folder
    shapes = sorted(folder.glob("shape-*"), key=lambda path: (len(path.name), path.name)) or [folder]
    if not all((shape / "policy.json").is_file() for shape in shapes):
        raise ValueError(f"run_folder is {run_folder}, but must be the folder of a finished run (policy/policy.json)")
    return shapes


def write_policy(folder: Path, policy: Policy) -> None:
    """Writes a policy's two files, `policy.json` last; raises OSError, which names the file that cannot be written."""
    low, high, config, kind = policy.actor.low, policy.actor.high, policy.config, type(policy.actor)
    is_configs = config is not None and make_algorithm(config, low, high).actor == policy.actor
    description = {
        "format": FORMAT, "env_id": policy.env_id, "observation_size": policy.observation_size,
        "low": [*map(float, low)], "high": [*map(float, high)], "agents": policy.agents,
        "diverged_agents": [policy.agents[index] for index in policy.diverged_agents],
        "best_agent": None if policy.best_agent is None else policy.agents[policy.best_agent],
        "network": "config" if is_configs else f"{kind.__module__}.{kind.__qualname__}",
        "config": None if config is None else config.to_dict(),
    }  # fmt: skip
    write_weights(folder / WEIGHTS, policy.variables)
    write_text(folder / "policy.json", json.dumps(description, indent=2) + "\n")


def read_policy(folder: Path, actor: Actor | None = None) -> Policy:
    """Reads the policy of a folder that has `policy.json`; arguments and errors are those of `load_policy`."""
    file = folder / "policy.json"
    try:
        known = _described(json.loads(file.read_bytes()), actor)
        example = jax.ShapeDtypeStruct((1, known["observation_size"]), jnp.float32)
        expected = jax.eval_shape(known["actor"].init, jax.random.key(0), example)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{file} cannot be read: {reason}") from error
    diverged = [known["agents"][index] for index in known["diverged_agents"]]
    return Policy(**known, variables=read_weights(folder / WEIGHTS, expected, known["agents"], diverged))


def _described(description: Any, actor: Actor | None) -> dict[str, Any]:
    """Returns the fields of the policy that `policy.json` describes, without the variables."""
    if description["format"] > FORMAT:
        raise ValueError(f"its format is {description['format']}, newer than {FORMAT}: update ddpg_jax")
    low, high = (tuple(map(float, description[name])) for name in ("low", "high"))
    size, agents = int(description["observation_size"]), tuple(map(int, description["agents"]))
    config = None if description["config"] is None else Config.from_dict(description["config"])
    best = description["best_agent"]
    if not (np.isfinite((low, high)).all() and low and size > 0):
        raise ValueError(f"{size} observations and actions from {low} to {high} make no sense")
    if actor is None:
        if config is None or description["network"] != "config":
            raise ValueError(f"its network is {description['network']}, which Config does not describe: pass it in "
                             f"Python, as load_policy(folder, actor=...)")  # fmt: skip
        actor = make_algorithm(config, low, high).actor
    return {
        "env_id": str(description["env_id"]), "observation_size": size, "actor": actor, "agents": agents,
        "diverged_agents": tuple(agents.index(agent) for agent in description["diverged_agents"]),
        "best_agent": None if best is None else agents.index(best), "config": config,
    }  # fmt: skip


def has_own_network(folder: Path) -> bool:
    """Returns whether the configuration does not describe the network of the policy in a folder."""
    try:
        return bool(json.loads((folder / "policy.json").read_bytes())["network"] != "config")
    except (OSError, ValueError, TypeError, KeyError):
        return False  # which `read_policy` refuses


def write_weights(file: Path, tree: Any) -> None:
    """Writes nested dictionaries of arrays [N, ...] as safetensors; raises OSError, which names the file."""
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}
    write_whole(file, safetensors.numpy.save(flat))


def read_weights(file: Path, expected: Any, agents: Sequence[int], diverged: Iterable[int]) -> Any:
    """Reads what `write_weights` wrote; raises ValueError if it is missing, damaged, not finite, or another network's.

    `expected` has the shapes and dtypes of one of the N agents' arrays; those of the diverged ones need not be finite.
    """
    try:
        found = safetensors.numpy.load_file(file)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = "missing: the folder has no weights" if is_missing else f"damaged: {error}"
        raise ValueError(f"{file} is {reason}") from error
    like = flatten_dict(expected, sep="/")
    for name in sorted({*like, *found}):
        here = f"{found[name].dtype}{list(found[name].shape)}" if name in found else "missing"
        there = f"{like[name].dtype}{[len(agents), *like[name].shape]}" if name in like else "not there"
        if here != there:
            raise ValueError(f"{file}: weights {name} are {here}, but must be {there}")
        is_finite = np.isfinite(found[name]).reshape(len(agents), -1).all(axis=1)
        if spoilt := sorted({agents[index] for index in np.flatnonzero(~is_finite).tolist()} - set(diverged)):
            raise ValueError(f"{file}: weights {name} are not finite in agents {spoilt}")
    return unflatten_dict(found, sep="/")
