"""Agents whose numbers are no longer finite: they learn no more, and the others are not affected in a single bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpg_jax.algorithm import averaging
from ddpg_jax.algorithm.types import TrainState
from ddpg_jax.population.blocks import Population, on_host, spread
from ddpg_jax.results.history import History


class Divergence(NamedTuple):
    """When an agent diverged, and by whose fault."""

    env_steps: int
    """The environment step at which it was seen."""
    fault: str | None
    """What the environment gave that is not finite; None: the agent's own numbers came first."""


@contextmanager
def learning_suspended(population: Population, positions: np.ndarray) -> Iterator[None]:
    """Undoes at the end what the agents at these positions have learned inside, while the others keep it."""
    kept: dict[int, tuple[list[int], Any]] = {}
    for block, within in population.locate(positions).items():
        agent = population.states[block].agent
        kept[block] = within, jax.tree.map(partial(_entries, within), agent)
    yield
    for block, (within, entries) in kept.items():
        state = population.states[block]
        agent = jax.tree.map(partial(_with_entries, within), state.agent, entries)
        population.states[block] = state._replace(agent=agent)


def _entries(index: list[int], array: jax.Array) -> np.ndarray:
    return on_host(array)[index] if array.ndim else on_host(array)


def _with_entries(index: list[int], array: jax.Array, entries: np.ndarray) -> jax.Array:
    """Returns the array [n, ...] with the entries of some agents replaced, on the same devices; [] is shared by all."""
    if not array.ndim:
        return array
    changed = np.array(on_host(array))
    changed[index] = entries
    return spread(changed, array.sharding)


def actor_and_critic(state: TrainState) -> dict[str, Any]:
    """Returns the variables of the actor that is evaluated and of the critic [n, ...], on the host."""
    return jax.tree.map(on_host, {"actor": averaging.policy(state.agent), "critic": state.agent.critic})


def environments_fault(population: Population, position: int, first_step: int, last_step: int) -> str | None:
    """Returns what an environment gave to the agent at this position that is not finite, in words; None: nothing.

    Args:
        population: the agents.
        position: of the agent.
        first_step: the steps after this one are looked at; their transitions must still be in the replay.
        last_step: up to this one.
    """
    transitions = jax.tree.map(np.asarray, population.transitions(position, first_step, last_step))
    given = [("reward", transitions.reward[:, None]), ("observation", transitions.next_observation)]
    for row, action in enumerate(transitions.action):
        if not (np.isfinite(action).all() and np.isfinite(transitions.observation[row]).all()):
            return None  # the agent itself, or what an earlier step gave
        for name, values in given:
            if not np.isfinite(values[row]).all():
                step = last_step - len(transitions.action) + row + 1
                return (
                    f"the environment gave the {name} {_numbers(values[row])} at step {step:,}, after the action "
                    f"{_numbers(action)}"
                )
    return None


def _numbers(values: np.ndarray | jax.Array) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def note_diverged(population: Population, history: History, final_returns: np.ndarray) -> None:
    """Adds to the history the agents whose final returns [N, S] or parameters are not finite, though losses were."""
    finite = np.isfinite(final_returns).all(axis=1)
    for positions, variables in population.portions(actor_and_critic):
        for leaf in jax.tree.leaves(variables):
            finite[positions] &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
    for agent in history.agents[~finite]:
        history.diverged.setdefault(int(agent), history.env_steps)
