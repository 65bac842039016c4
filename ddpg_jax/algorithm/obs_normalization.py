"""Observations standardised by the mean and the variance of those that the agent has acted on before it learns.

Then the statistics stay as they are: inputs that drift under a network that learns from them can undo what it has
learned. On CartpoleBalance agents end at about half of the return with statistics that keep moving (`docs/family.md`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import path_aware_map

from ddpg_jax.algorithm.networks import OBS_STATS
from ddpg_jax.algorithm.types import AgentState, Variables

FEWEST = 1_000
"""Observations that the statistics take in, also if the agent learns before that."""


def update(state: AgentState, observation: jax.Array) -> AgentState:
    """Adds observations [O] or [E, O], one after another, to the statistics of all networks of an agent.

    Welford 1962: the mean moves by (x - mean) / n, and the variance by ((x - old mean)(x - new mean) - variance) / n.
    After the agent's first update, and `FEWEST` observations, nothing moves.
    """

    def add_one(old: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, jax.Array], None]:
        count = old["count"] + 1
        mean = old["mean"] + (x - old["mean"]) / count
        variance = old["variance"] + ((x - old["mean"]) * (x - mean) - old["variance"]) / count
        moves = (state.step == 0) | (count <= FEWEST)
        new = {"count": count, "mean": mean, "variance": variance}
        return jax.tree.map(lambda x, y: jnp.where(moves, x, y), new, old), None

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
