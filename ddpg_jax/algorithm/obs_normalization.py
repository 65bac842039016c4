"""Observations standardised by the mean and the variance of all that the agent has acted on."""

from typing import Any

import jax
from flax.traverse_util import path_aware_map

from ddpg_jax.algorithm.networks import OBS_STATS
from ddpg_jax.algorithm.types import AgentState, Variables


def update(state: AgentState, observation: jax.Array) -> AgentState:
    """Adds observations to the statistics of an agent's networks, online and targets alike.

    Welford 1962: the mean moves by (x - mean) / n, and the variance by ((x - old mean)(x - new mean) - variance) / n.

    Args:
        state: an agent whose networks standardise observations.
        observation: [O], or [E, O], which are added one after another.

    Returns:
        The agent with the new statistics; its parameters are unchanged.
    """
    observations = observation.reshape(-1, observation.shape[-1])
    new, _ = jax.lax.scan(_add_one, state.actor[OBS_STATS]["standardize"], observations)

    def replaced(variables: Variables) -> Variables:
        return variables | {OBS_STATS: path_aware_map(lambda path, _: new[path[-1]], variables[OBS_STATS])}

    return state._replace(
        actor=replaced(state.actor),
        critic=replaced(state.critic),
        target_actor=replaced(state.target_actor),
        target_critic=replaced(state.target_critic),
        ema_actor=None if state.ema_actor is None else replaced(state.ema_actor),
    )


def skip(state: AgentState, observation: jax.Array) -> AgentState:
    """Returns the agent unchanged: its networks do not standardise observations."""
    return state


def _add_one(old: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, Any], None]:
    """Returns the statistics with one more observation [O]."""
    count = old["count"] + 1
    mean = old["mean"] + (x - old["mean"]) / count
    variance = old["variance"] + ((x - old["mean"]) * (x - mean) - old["variance"]) / count
    return {"count": count, "mean": mean, "variance": variance}, None
