"""Observations standardised by the mean and the variance of all that the agent has acted on."""

from typing import Any

import jax
from flax.traverse_util import path_aware_map

from ddpg_jax.algorithm.networks import MOMENTS
from ddpg_jax.algorithm.types import AgentState, Variables


def observe(state: AgentState, observation: jax.Array) -> AgentState:
    """Returns the agent with one more observation [O] in the moments of its networks, online and targets alike.

    Welford 1962: the mean moves by (x - mean) / n, and the variance by ((x - old mean)(x - new mean) - variance) / n.
    """
    old = state.actor[MOMENTS]["standardize"]
    count = old["count"] + 1
    mean = old["mean"] + (observation - old["mean"]) / count
    variance = old["variance"] + ((observation - old["mean"]) * (observation - mean) - old["variance"]) / count
    new: dict[Any, jax.Array] = {"count": count, "mean": mean, "variance": variance}

    def replaced(variables: Variables) -> Variables:
        return variables | {MOMENTS: path_aware_map(lambda path, _: new[path[-1]], variables[MOMENTS])}

    return state._replace(
        actor=replaced(state.actor),
        critic=replaced(state.critic),
        target_actor=replaced(state.target_actor),
        target_critic=replaced(state.target_critic),
    )


def ignore(state: AgentState, observation: jax.Array) -> AgentState:
    """Returns the agent as it is: its networks take observations as they are."""
    return state
