"""Greedy trajectories: the actions of agents, their rewards, and the values that their critics expected."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.pictures.snapshots import Snapshot

FORESIGHT = 0.01
"""Weight below which later rewards no longer count towards a discounted return."""

MAX_FORESIGHT = 1000
"""The most steps whose rewards count towards a discounted return."""


class Trajectories(NamedTuple):
    """T steps of n agents from S start states each. They go on beyond the ends of episodes."""

    state: Any
    """The environment's state before each step, a tree of arrays [T, n, S, ...]."""
    action: jax.Array
    """[T, n, S, A] in the environment's units."""
    value: jax.Array
    """[T, n, S] Q(s, a)."""
    reward: jax.Array
    """[T, n, S]"""
    terminated: jax.Array
    """[T, n, S] bool: the step ended in a terminal state."""
    truncated: jax.Array
    """[T, n, S] bool: the step was the last within the environment's time limit."""


@partial(jax.jit, static_argnames=("environment", "algorithm", "num_steps"))
def play(
    snapshot: Snapshot, starts: tuple[Any, jax.Array], *, environment: Environment, algorithm: Algorithm, num_steps: int
) -> Trajectories:
    """Plays greedy episodes for `num_steps`, also beyond their ends.

    Args:
        snapshot: of n agents.
        starts: environment states and observations with leading axes [n, S].
        environment: if it is random, all agents get the same keys, those of an evaluation.
        algorithm: of the agents.
        num_steps: T.
    """
    num_agents, num_starts = starts[1].shape[:2]
    low, high = jnp.asarray(environment.low), jnp.asarray(environment.high)

    def step(carry: tuple[Any, jax.Array], t: jax.Array) -> tuple[tuple[Any, jax.Array], Trajectories]:
        state, observation = carry
        action = jnp.clip(jnp.asarray(jax.vmap(algorithm.actor.apply)(snapshot.actors, observation)), low, high)
        value = algorithm.action_value(
            jnp.asarray(jax.vmap(algorithm.critic.apply)(snapshot.critics, observation, action))
        )
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), t), num_starts)
        keys = jnp.broadcast_to(keys, (num_agents, num_starts))
        after, result = jax.vmap(jax.vmap(environment.step))(keys, state, action)
        seen = Trajectories(state, action, value, result.reward, result.terminated, result.truncated)
        return (after, result.observation), seen

    return jax.lax.scan(step, starts, jnp.arange(num_steps))[1]


def lengths(trajectories: Trajectories, max_steps: int) -> np.ndarray:
    """Returns the lengths [n, S] of the episodes: until terminated or truncated, and at most `max_steps`."""
    ended = np.asarray(trajectories.terminated | trajectories.truncated)[:max_steps]
    return np.where(ended.any(axis=0), ended.argmax(axis=0) + 1, min(max_steps, len(ended)))


def returns(trajectories: Trajectories, max_steps: int) -> np.ndarray:
    """Returns the undiscounted returns [n, S] of the episodes."""
    steps = np.arange(len(trajectories.reward))[:, None, None]
    return np.sum(np.asarray(trajectories.reward, np.float64), axis=0, where=steps < lengths(trajectories, max_steps))


def foresight(discount: float) -> int:
    """Returns the steps after which a reward weighs less than `FORESIGHT`, at most `MAX_FORESIGHT`."""
    if discount in (0.0, 1.0):
        return MAX_FORESIGHT if discount else 1
    return int(min(MAX_FORESIGHT, np.ceil(np.log(FORESIGHT) / np.log(discount))))


def estimates_and_returns(
    trajectories: Trajectories, discounts: np.ndarray, *, max_steps: int, time_limit_terminal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns Q(s, a) for every step of the episodes, and the discounted returns that followed.

    A critic that bootstraps at the time limit estimates a return without a limit, so rewards beyond the limit count,
    too, until their weight is `FORESIGHT`. If training stores a time limit as terminal, rewards count up to it.

    Args:
        trajectories: at least `max_steps` plus the greatest `foresight` of the discounts long.
        discounts: [n] gamma of each agent.
        max_steps: the time limit.
        time_limit_terminal: whether training stores the time limit as terminal.

    Returns:
        Estimates [P] and returns [P] of all P steps of all episodes.
    """
    reward = np.asarray(trajectories.reward, np.float64)
    going_on = 1.0 - np.asarray(trajectories.terminated, np.float64)
    steps = np.arange(len(reward))[:, None, None]
    within = steps < lengths(trajectories, max_steps)
    if time_limit_terminal:
        going_on = np.where(steps == lengths(trajectories, max_steps) - 1, 0.0, going_on)
    total = np.zeros_like(reward)
    for agent, discount in enumerate(discounts):
        ahead = foresight(float(discount))
        total[:, agent] = _discounted(reward[:, agent], going_on[:, agent], float(discount), ahead)
    return np.asarray(trajectories.value)[within], total[within]


def _discounted(reward: np.ndarray, going_on: np.ndarray, discount: float, ahead: int) -> np.ndarray:
    """Returns the discounted sums [T, S] of the next `ahead` rewards from each step on; `going_on` is 0 at an end."""
    total, weight = np.zeros_like(reward), np.ones_like(reward)
    for k in range(min(ahead, len(reward))):
        valid = len(reward) - k
        total[:valid] += weight[:valid] * reward[k:]
        weight[:valid] *= discount * going_on[k:]
    return total
