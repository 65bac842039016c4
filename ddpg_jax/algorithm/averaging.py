"""An average of the actor's weights over its latest updates, which is evaluated and exported in the actor's place.

A greedy policy may be good before and after a few updates, and bad between them. The average steps over this (Nikishin
et al. 2018, "Improving Stability in Deep Reinforcement Learning with Weight Averaging"; theirs has equal weights, this
one is exponential). Training does not depend on it: the actor itself explores and learns.
"""

import optax

from ddpg_jax.algorithm.types import AgentState, Hyperparameters, Variables, needed


def begin(state: AgentState) -> AgentState:
    """Returns a new agent with an average, which is its actor."""
    return state._replace(average_actor=state.actor)


def follow(state: AgentState, hyperparameters: Hyperparameters) -> AgentState:
    """Returns the agent after an update with its average, if it has one, moved by `average_tau` towards its actor.

    Raises:
        ValueError: if there is an average without `average_tau`, or `average_tau` without an average.
    """
    if state.average_actor is None:
        if hyperparameters.average_tau is not None:
            raise ValueError(
                "average_tau is given, but the setup has no average: dataclasses.replace(setup, average_actor=True)"
            )
        return state
    average_tau = needed(hyperparameters, "average_tau")
    return state._replace(average_actor=optax.incremental_update(state.actor, state.average_actor, average_tau))


def policy(state: AgentState) -> Variables:
    """Returns the variables of the actor that is evaluated and exported: the average, if there is one."""
    return state.actor if state.average_actor is None else state.average_actor
