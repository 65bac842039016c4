"""Observations standardised by the mean and the variance of all that the agent has acted on."""

from typing import Any

import jax
from flax.traverse_util import path_aware_map

from ddpg_jax.algorithm.networks import OBS_STATS
from ddpg_jax.algorithm.types import AgentState, Variables


def update(state: AgentState, observation: jax.Array) -> AgentState:
    """Adds observations [O] or [E, O], one after another, to the statistics of all networks of an agent.

    Welford 1962: the mean moves by (x - mean) / n, and the variance by ((x - old mean)(x - new mean) - variance) / n.
    """

    def add_one(old: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, jax.Array], None]:
        count = old["count"] + 1
        mean = old["mean"] + (x - old["mean"]) / count
        variance = old["variance"] + ((x - old["mean"]) * (x - mean) - old["variance"]) / count
        return {"count": count, "mean": mean, "variance": variance}, None

    observations = observation.reshape(-1, observation.shape[-1])
    new, _ = jax.lax.scan(add_one, state.actor[OBS_STATS]["standardize"], observations)

    def replaced(variables: Variables) -> Variables:
        return variables | {OBS_STATS: path_aware_map(lambda path, _: new[path[-1]], variables[OBS_STATS])}

    names = ("actor", "critic", "target_actor", "target_critic", *(["ema_actor"] if state.ema_actor else []))
    changed: dict[str, Any] = {name: replaced(getattr(state, name)) for name in names}
    return state._replace(**changed)


def skip(state: AgentState, observation: jax.Array) -> AgentState:
    """Returns the agent unchanged: its networks do not standardise observations."""
    return state
