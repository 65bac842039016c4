"""Greedy trajectories: what agents did, what they received, and what their critics expected."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.pictures.snapshots import Moment

FORESIGHT = 0.01
"""Rewards count towards a discounted return until their weight is this."""

MAX_FORESIGHT = 1000
"""Steps for which rewards count towards it at most."""


class Trajectories(NamedTuple):
    """T steps of n agents from S start states each. No time limit ends them; `ended` has them all."""

    state: Any
    """Before each step, the environment's own, a tree of arrays [T, n, S, ...]."""
    action: jax.Array
    """[T, n, S, A] in the environment's units."""
    value: jax.Array
    """[T, n, S] Q(s, a), what the critic expects of it."""
    reward: jax.Array
    """[T, n, S]"""
    terminated: jax.Array
    """[T, n, S] bool: the step ended in a terminal state."""
    truncated: jax.Array
    """[T, n, S] bool: it was the last within the environment's time limit."""


@partial(jax.jit, static_argnames=("environment", "algorithm", "num_steps"))
def play(
    moment: Moment, starts: tuple[Any, jax.Array], *, environment: Environment, algorithm: Algorithm, num_steps: int
) -> Trajectories:
    """Greedy episodes that go on for `num_steps`, beyond their ends.

    Args:
        moment: n agents.
        starts: environment states and observations with leading axes [n, S].
        environment: a random one gets the same keys for every agent, those of an evaluation.
        algorithm: the agents'.
        num_steps: T.
    """
    num_agents, num_starts = starts[1].shape[:2]
    low, high = jnp.asarray(environment.low), jnp.asarray(environment.high)

    def step(carry: tuple[Any, jax.Array], t: jax.Array) -> tuple[tuple[Any, jax.Array], Trajectories]:
        state, observation = carry
        action = jnp.clip(jnp.asarray(jax.vmap(algorithm.actor.apply)(moment.actors, observation)), low, high)
        value = jnp.asarray(jax.vmap(algorithm.critic.apply)(moment.critics, observation, action))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), t), num_starts)
        keys = jnp.broadcast_to(keys, (num_agents, num_starts))
        after, result = jax.vmap(jax.vmap(environment.step))(keys, state, action)
        seen = Trajectories(state, action, value, result.reward, result.terminated, result.truncated)
        return (after, result.observation), seen

    return jax.lax.scan(step, starts, jnp.arange(num_steps))[1]


def lengths(trajectories: Trajectories, max_steps: int) -> np.ndarray:
    """Steps of each episode [n, S]: until it was terminated or cut off, and at most `max_steps`."""
    ended = np.asarray(trajectories.terminated | trajectories.truncated)[:max_steps]
    return np.where(ended.any(axis=0), ended.argmax(axis=0) + 1, min(max_steps, len(ended)))


def returns(trajectories: Trajectories, max_steps: int) -> np.ndarray:
    """The undiscounted return of each episode [n, S]."""
    steps = np.arange(len(trajectories.reward))[:, None, None]
    return np.sum(np.asarray(trajectories.reward, np.float64), axis=0, where=steps < lengths(trajectories, max_steps))


def foresight(discount: float) -> int:
    """Steps after which a reward weighs less than FORESIGHT, at most MAX_FORESIGHT."""
    if discount in (0.0, 1.0):
        return MAX_FORESIGHT if discount else 1
    return int(min(MAX_FORESIGHT, np.ceil(np.log(FORESIGHT) / np.log(discount))))


def estimates_and_returns(
    trajectories: Trajectories, discounts: np.ndarray, *, max_steps: int, time_limit_terminal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Every Q(s, a) within the episodes, beside the discounted return that followed.

    A critic that bootstraps at the time limit estimates a return without one, so what followed is taken from beyond
    it; rewards count until their weight is `FORESIGHT`. Where training stores a time limit as terminal, they count up
    to it.

    Args:
        trajectories: of at least `max_steps` and the greatest foresight of the discounts.
        discounts: [n] of the agents.
        max_steps: the time limit.
        time_limit_terminal: whether the critic has learned that nothing follows it.

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
    """The discounted sums of the next `ahead` rewards [T, S] from each step on; `going_on` is 0 behind a last one."""
    total, weight = np.zeros_like(reward), np.ones_like(reward)
    for k in range(min(ahead, len(reward))):
        valid = len(reward) - k
        total[:valid] += weight[:valid] * reward[k:]
        weight[:valid] *= discount * going_on[k:]
    return total
