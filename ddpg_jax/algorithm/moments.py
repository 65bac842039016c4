"""Observations standardised by the mean and the variance of all that the agent has acted on."""

from typing import Any

import jax
from flax.traverse_util import path_aware_map

from ddpg_jax.algorithm.networks import MOMENTS
from ddpg_jax.algorithm.types import AgentState, Variables


def observe(state: AgentState, observation: jax.Array) -> AgentState:
    """Returns the agent with more observations in the moments of its networks, online and targets alike.

    Welford 1962: the mean moves by (x - mean) / n, and the variance by ((x - old mean)(x - new mean) - variance) / n.

    Args:
        state: an agent.
        observation: [O], or [E, O], one after another.
    """
    observations = observation.reshape(-1, observation.shape[-1])
    new, _ = jax.lax.scan(_with_one, state.actor[MOMENTS]["standardize"], observations)

    def replaced(variables: Variables) -> Variables:
        return variables | {MOMENTS: path_aware_map(lambda path, _: new[path[-1]], variables[MOMENTS])}

    return state._replace(
        actor=replaced(state.actor),
        critic=replaced(state.critic),
        target_actor=replaced(state.target_actor),
        target_critic=replaced(state.target_critic),
        average_actor=None if state.average_actor is None else replaced(state.average_actor),
    )


def _with_one(old: dict[Any, jax.Array], x: jax.Array) -> tuple[dict[Any, jax.Array], None]:
    """Returns the moments with one more observation [O]."""
    count = old["count"] + 1
    mean = old["mean"] + (x - old["mean"]) / count
    variance = old["variance"] + ((x - old["mean"]) * (x - mean) - old["variance"]) / count
    return {"count": count, "mean": mean, "variance": variance}, None


def ignore(state: AgentState, observation: jax.Array) -> AgentState:
    """Returns the agent as it is: its networks take observations as they are."""
    return state
