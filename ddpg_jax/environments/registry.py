"""The libraries that provide environments: one line each."""

from functools import lru_cache

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments import gymnax


@lru_cache(maxsize=64)
def make(env_id: str) -> Environment:
    """Returns the environment of that name.

    Args:
        env_id: a name of gymnax, such as "Pendulum-v1".

    Raises:
        ValueError: if there is no such environment, or its actions or observations are not bounded boxes of numbers.
    """
    return gymnax.make(env_id)
