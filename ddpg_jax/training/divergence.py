"""Agents whose numbers are no longer finite: when that was seen, and by whose fault."""

import jax
import numpy as np

from ddpg_jax.algorithm import ema
from ddpg_jax.results.history import History
from ddpg_jax.training.trainer import Trainer


def fault_of_environment(trainer: Trainer, index: int, first_step: int, last_step: int) -> str | None:
    """Returns what an environment gave to an agent that is not finite, in words; None if its own numbers came first.

    Args:
        trainer: of the agent.
        index: of the agent in it.
        first_step: environment steps after this one are looked at; their transitions must still be in the replay.
        last_step: up to this one.
    """
    transitions = trainer.transitions(index, first_step, last_step)
    given = [("reward", transitions.reward[:, None]), ("observation", transitions.next_observation)]
    for row, action in enumerate(np.asarray(transitions.action)):
        if not (np.isfinite(action).all() and np.isfinite(transitions.observation[row]).all()):
            return None
        for name, values in given:
            if not np.isfinite(values[row]).all():
                step = last_step - len(transitions.action) + row + 1
                return (f"the environment gave the {name} {_numbers(values[row])} at step {step:,}, after the action "
                        f"{_numbers(action)}")  # fmt: skip
    return None


def _numbers(values: np.ndarray | jax.Array) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def note_diverged(trainer: Trainer, history: History, final_returns: np.ndarray) -> None:
    """Adds to the history the agents whose final returns [N, S] or parameters are not finite, though losses were."""
    finite = np.isfinite(final_returns).all(axis=1)
    for leaf in jax.tree.leaves(trainer.variables(lambda agent: (ema.policy(agent), agent.critic))):
        finite &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
    for agent in history.agents[~finite]:
        history.diverged.setdefault(int(agent), history.env_steps)
