"""An exponential moving average of the actor's weights, which is evaluated and exported in the actor's place.

A greedy policy may be good before and after a few updates, and bad between them; the average smooths over this. The
idea is Nikishin et al. 2018, "Improving Stability in Deep Reinforcement Learning with Weight Averaging" (theirs has
equal weights). Training does not depend on the average: the actor itself explores and learns.
"""

import optax

from ddpg_jax.algorithm.types import AgentState, Hyperparameters, Variables, required


def init(state: AgentState) -> AgentState:
    """Returns a new agent with an average, which equals its actor."""
    return state._replace(ema_actor=state.actor)


def update(state: AgentState, hyperparameters: Hyperparameters) -> AgentState:
    """Computes ema <- ema_tau actor + (1 - ema_tau) ema after an update, if the agent has an average.

    A ValueError is raised if there is an average without `ema_tau`, or `ema_tau` without an average.
    """
    if state.ema_actor is None:
        if hyperparameters.ema_tau is not None:
            rule = "must be None, because the setup has no average"
            raise ValueError(f"ema_tau is given, but {rule}: with_parts(setup, ema=True)")
        return state
    ema_tau = required(hyperparameters, "ema_tau")
    return state._replace(ema_actor=optax.incremental_update(state.actor, state.ema_actor, ema_tau))


def policy(state: AgentState) -> Variables:
    """Returns the variables of the actor that is evaluated and exported: the average, if there is one."""
    return state.actor if state.ema_actor is None else state.ema_actor
