"""Experience replay (Lin 1992; paper, section 3) as one preallocated array.

A transition is a row, so a step writes one slice and a minibatch is one gather. Under `vmap` the agents of a group
share `added`: a write to one and the same row of all stays an update in place, where a write to a row of each agent's
own would be a scatter, and a conditional one a copy of the whole replay.
"""

import itertools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from ddpg_jax.types import PRNGKey, Replay, Transition

Sampler = Callable[[PRNGKey, int, jax.Array], jax.Array]
"""(key, batch_size, size []) -> indices [batch_size] below size; the key is consumed."""


def init(capacity: int, observation_size: int, action_size: int, dtype: jnp.dtype = jnp.float32) -> Replay:
    """An empty replay of `capacity` rows.

    Raises:
        ValueError: if the capacity is below 1.
    """
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}, but must be at least 1")
    return Replay(jnp.zeros((capacity, 2 * observation_size + action_size + 2), dtype), jnp.int32(0))


def add(replay: Replay, transition: Transition) -> Replay:
    """The replay with one transition (no leading axis) more; the oldest makes room when it is full."""
    chex.assert_rank(list(transition), [1, 1, 0, 0, 1])
    row = jnp.concatenate([jnp.atleast_1d(field).astype(replay.rows.dtype) for field in transition])
    index = replay.added % replay.rows.shape[0]
    return Replay(jax.lax.dynamic_update_slice(replay.rows, row[None], (index, 0)), replay.added + 1)


def sample(key: PRNGKey, replay: Replay, batch_size: int, action_size: int, sampler: Sampler) -> Transition:
    """A minibatch [B, ...] of the transitions added so far, at least one of which there must be; consumes the key."""
    size = jnp.minimum(replay.added, replay.rows.shape[0])
    return unpack(replay.rows.at[sampler(key, batch_size, size)].get(mode="promise_in_bounds"), action_size)


def unpack(rows: Any, action_size: int) -> Transition:
    """The transitions [B, ...] in rows [B, 2 O + A + 2] of the replay, of JAX or NumPy."""
    width = rows.shape[1]
    observation_size = (width - action_size - 2) // 2
    ends = (observation_size, observation_size + action_size, observation_size + action_size + 1)
    bounds = (0, *ends, ends[-1] + 1, width)
    parts = [rows[:, first:last] for first, last in itertools.pairwise(bounds)]
    observation, action, reward, discount, next_observation = parts
    return Transition(observation, action, reward[:, 0], discount[:, 0], next_observation)


def with_replacement(key: PRNGKey, batch_size: int, size: jax.Array) -> jax.Array:
    """Independent uniform indices [B] below `size`."""
    return jax.random.randint(key, (batch_size,), 0, size)


def without_replacement(key: PRNGKey, batch_size: int, size: jax.Array) -> jax.Array:
    """Distinct uniform indices [B] below `size`, which must be at least B.

    The first B values of a keyed pseudo-random permutation of 0 … size-1, at a cost that does not depend on `size`: a
    Feistel network permutes the next power of two, and what falls outside is sent through again until it is inside
    (Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
    """
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)
    size = jnp.asarray(size, jnp.uint32)
    num_bits = 32 - jax.lax.clz(jnp.maximum(size - 1, 1))

    def outside(index: jax.Array) -> jax.Array:
        return jnp.any(index >= size)

    def again(index: jax.Array) -> jax.Array:
        return jnp.where(index >= size, _feistel(index, num_bits, round_keys), index)

    first = _feistel(jnp.arange(batch_size, dtype=jnp.uint32), num_bits, round_keys)
    return jax.lax.while_loop(outside, again, first).astype(jnp.int32)


_ROUNDS = 8


def _feistel(x: jax.Array, num_bits: jax.Array, round_keys: jax.Array) -> jax.Array:
    """A permutation of the `num_bits`-bit numbers: two halves of their bits scramble each other in turn."""
    low_bits = num_bits // 2
    high_bits = num_bits - low_bits
    low, high = x & _mask(low_bits), x >> low_bits
    for i in range(0, _ROUNDS, 2):
        low = low ^ (_mix(high ^ round_keys[i]) & _mask(low_bits))
        high = high ^ (_mix(low ^ round_keys[i + 1]) & _mask(high_bits))
    return (high << low_bits) | low


def _mask(num_bits: jax.Array) -> jax.Array:
    return (jnp.uint32(1) << num_bits) - 1


def _mix(x: jax.Array) -> jax.Array:
    """The 32-bit finaliser of MurmurHash3 (Appleby, public domain): every bit of x reaches every bit of the result."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
