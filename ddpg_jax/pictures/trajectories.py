"""Greedy trajectories: actions of agents, their rewards, and the values that their critics expected."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.evaluation import Starts
from ddpg_jax.pictures.snapshots import Snapshot

FORESIGHT = 0.01
"""Weight below which later rewards no longer count towards a discounted return."""


class Steps(NamedTuple):
    """T steps of n agents from S start states each. They go on beyond the ends of episodes."""

    value: Any  # [T, n, S] Q(s, a)
    reward: Any  # [T, n, S]
    terminated: Any  # [T, n, S] bool: the step ended in a terminal state
    truncated: Any  # [T, n, S] bool: the step was the last within the environment's time limit


class Trajectories(NamedTuple):
    """The steps from all start states, and what was seen and done from the last K of them."""

    steps: Steps
    observation: Any  # [T, n, K, O] before each step
    action: Any  # [T, n, K, A] in the environment's units
    state: Any  # [T, ...] the environment's states in the first agent's first shown episode; None: they were not kept


@partial(jax.jit, static_argnames=("environment", "algorithm", "num_steps", "num_shown", "keep_state"))
def play(
    snapshot: Snapshot,
    starts: Starts,
    *,
    environment: Environment,
    algorithm: Algorithm,
    num_steps: int,
    num_shown: int = 1,
    keep_state: bool = False,
) -> Trajectories:
    """Plays greedy episodes for T = `num_steps`, also beyond their ends, with the random numbers of an evaluation.

    The `starts` have leading axes [n, S]; K is `num_shown`.
    """
    low, high = (jnp.asarray(bound, jnp.float32)[None, None] for bound in (environment.low, environment.high))

    def step(carry: tuple[Any, jax.Array], t: jax.Array) -> tuple[tuple[Any, jax.Array], Trajectories]:
        state, observation = carry
        action = jnp.clip(jnp.asarray(jax.vmap(algorithm.actor.apply)(snapshot.actors, observation)), low, high)
        output = jax.vmap(algorithm.critic.apply)(snapshot.critics, observation, action)
        keys = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(0, None)), in_axes=(0, None))(starts.key, t)
        after, result = jax.vmap(jax.vmap(environment.step))(keys, state, action)
        value = algorithm.action_value(jnp.asarray(output))
        steps = Steps(value, result.reward, result.terminated, result.truncated)
        kept = jax.tree.map(lambda leaf: leaf[0, -num_shown], state) if keep_state else None
        seen = Trajectories(steps, observation[:, -num_shown:], action[:, -num_shown:], kept)
        return (after, result.observation), seen

    return jax.lax.scan(step, (starts.state, starts.observation), jnp.arange(num_steps))[1]


def lengths(steps: Steps, max_steps: int) -> np.ndarray:
    """Returns the lengths [n, S] of the episodes: until terminated or truncated, and at most `max_steps`."""
    ended = np.asarray(steps.terminated | steps.truncated)[:max_steps]
    return np.where(ended.any(axis=0), ended.argmax(axis=0) + 1, min(max_steps, len(ended)))


def returns(steps: Steps, max_steps: int) -> np.ndarray:
    """Returns the undiscounted returns [n, S] of the episodes."""
    number = np.arange(len(steps.reward))[:, None, None]
    return np.sum(np.asarray(steps.reward, np.float64), axis=0, where=number < lengths(steps, max_steps))


def foresight(discount: float) -> int:
    """Returns the steps after which a reward weighs less than `FORESIGHT`, at most 1,000."""
    if discount in (0.0, 1.0):
        return 1000 if discount else 1
    return int(min(1000, np.ceil(np.log(FORESIGHT) / np.log(discount))))


def estimates_and_returns(
    steps: Steps, discount: float, *, max_steps: int, time_limit_terminal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns Q(s, a) [P] at every step of the episodes, and the discounted returns [P] that followed.

    A critic that bootstraps at the time limit estimates a return without a limit, so rewards beyond the limit also
    count, until their weight is `FORESIGHT`; so T must be at least `max_steps` plus the discount's `foresight`. If
    training stores a time limit as terminal, rewards count up to it.
    """
    reward, length = np.asarray(steps.reward, np.float64), lengths(steps, max_steps)
    number = np.arange(len(reward))[:, None, None]
    ends = np.asarray(steps.terminated) | ((number == length - 1) & time_limit_terminal)
    total, weight = np.zeros_like(reward), np.ones_like(reward)
    for k in range(min(foresight(discount), len(reward))):
        valid = len(reward) - k
        total[:valid] += weight[:valid] * reward[k:]
        weight[:valid] *= np.where(ends[k:], 0.0, discount)
    return np.asarray(steps.value)[number < length], total[number < length]
