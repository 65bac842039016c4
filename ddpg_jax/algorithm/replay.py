"""Experience replay (Lin 1992; paper, section 3) as one preallocated array.

A transition is a row, so that a step writes one slice and a minibatch is one gather. Under `vmap` the agents of a group
share `added`: all write the same row, so the write stays in place. Different rows would make it a scatter, and a
conditional write would copy the whole replay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.types import Hyperparameters, PRNGKey, Replay, Transition, required

Sampler = Callable[[PRNGKey, int, jax.Array], jax.Array]
"""(key, batch_size, size []) -> indices [batch_size] below size. The key is consumed."""

Reader = Callable[[Replay, jax.Array, int, Hyperparameters], Transition]
"""(replay, rows [B], number of actions, hyperparameters) -> the transitions [B, ...] that begin at those rows."""


def init(capacity: int, observation_size: int, action_size: int, dtype: jnp.dtype = jnp.float32) -> Replay:
    """Returns an empty replay of `capacity` rows, or raises a ValueError if `capacity` is below 1."""
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}, but must be at least 1")
    return Replay(jnp.zeros((capacity, 2 * observation_size + action_size + 2), dtype), jnp.int32(0))


def add(replay: Replay, transition: Transition) -> Replay:
    """Returns the replay with one more transition (no leading axis), in place of the oldest if the replay is full."""
    chex.assert_rank(list(transition), [1, 1, 0, 0, 1])
    row = jnp.concatenate([jnp.atleast_1d(field).astype(replay.rows.dtype) for field in transition])
    return _add_rows(replay, row[None])


def add_all(replay: Replay, transitions: Transition) -> Replay:
    """Returns the replay with E more transitions [E, ...]; E must divide the capacity and `added`."""
    chex.assert_rank(list(transitions), [2, 2, 1, 1, 2])
    columns = [field if field.ndim == 2 else field[:, None] for field in transitions]
    return _add_rows(replay, jnp.concatenate([column.astype(replay.rows.dtype) for column in columns], axis=1))


def _add_rows(replay: Replay, new: jax.Array) -> Replay:
    index = replay.added % replay.rows.shape[0]
    rows = jax.lax.dynamic_update_slice_in_dim(replay.rows, new, index, axis=0)
    return Replay(rows, replay.added + len(new))


def sample(key: PRNGKey, replay: Replay, batch_size: int, action_size: int, sampler: Sampler) -> Transition:
    """Returns a minibatch [B, ...] of at least one transition (B for `without_replacement`). Consumes the key."""
    return read(replay, sampler(key, batch_size, size_after(replay, 0)), action_size)


def size_after(replay: Replay, num: jax.Array | int) -> jax.Array:
    """Returns the number of transitions in the replay after `num` more have been added."""
    return jnp.minimum(replay.added + num, replay.rows.shape[0])


def read(
    replay: Replay, indices: jax.Array, action_size: int, hyperparameters: Hyperparameters | None = None
) -> Transition:
    """Returns the transitions [B, ...] in the rows `indices` [B]: the plain `Reader`, which uses no hyperparameters."""
    return unpack(replay.rows.at[indices].get(mode="promise_in_bounds"), action_size)


@dataclass(frozen=True)
class Rescaled:
    """Reads transitions by another reader, and multiplies their rewards by `Hyperparameters.reward_scale`."""

    reader: Reader
    """Reads the transitions."""

    def __call__(
        self, replay: Replay, indices: jax.Array, action_size: int, hyperparameters: Hyperparameters
    ) -> Transition:
        """Returns the transitions [B, ...]."""
        batch = self.reader(replay, indices, action_size, hyperparameters)
        scale = jnp.asarray(required(hyperparameters, "reward_scale"), batch.reward.dtype)
        return batch._replace(reward=batch.reward * scale)


def unpack(rows: Any, action_size: int) -> Transition:
    """Returns the transitions [B, ...] in rows [B, 2 O + A + 2] of the replay, as JAX or NumPy arrays."""
    size = (rows.shape[1] - action_size - 2) // 2
    end = size + action_size
    reward, discount = rows[:, end : end + 1][:, 0], rows[:, end + 1 : end + 2][:, 0]
    return Transition(rows[:, :size], rows[:, size:end], reward, discount, rows[:, end + 2 :])


def with_replacement(key: PRNGKey, batch_size: int, size: jax.Array) -> jax.Array:
    """Returns independent uniform indices [B] below `size`."""
    return jax.random.randint(key, (batch_size,), 0, size, jnp.int32)


def without_replacement(key: PRNGKey, batch_size: int, size: jax.Array) -> jax.Array:
    """Returns distinct uniform indices [B] below `size`, which must be at least B.

    They are the first B values of a keyed pseudo-random permutation of 0 … size - 1, whose cost does not depend on
    `size`: a Feistel network permutes pairs (row < a, column < b), where a is about the square root of `size` and
    a b >= size; pairs whose index is not below `size` are permuted again (Black & Rogaway 2002, "Ciphers with Arbitrary
    Finite Domains").
    """
    num_rounds = 8 if batch_size >= 64 else 16  # with fewer rounds, small batches fail the statistical tests
    round_keys = jax.random.bits(key, (num_rounds,), jnp.uint32)
    size = jnp.asarray(size, jnp.uint32)
    num_rows = jnp.ceil(jnp.sqrt(size.astype(jnp.float32))).astype(jnp.uint32)
    num_columns = (size + num_rows - 1) // num_rows

    def index(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return pair[1] * num_rows + pair[0]

    def again(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        row, column = _feistel(*pair, num_rows, num_columns, round_keys)
        outside = index(pair) >= size
        return jnp.where(outside, row, pair[0]), jnp.where(outside, column, pair[1])

    counter = jnp.arange(batch_size, dtype=jnp.uint32)
    pair = _feistel(counter % num_rows, counter // num_rows, num_rows, num_columns, round_keys)
    pair = jax.lax.while_loop(lambda pair: jnp.any(index(pair) >= size), again, pair)
    return index(pair).astype(jnp.int32)


def _feistel(
    row: jax.Array, column: jax.Array, num_rows: jax.Array, num_columns: jax.Array, round_keys: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Permutes the pairs (row, column): shifts each in turn, cyclically, by an amount that depends on the other."""
    for i in range(0, len(round_keys), 2):
        row = _shift(row, _below(num_rows, column ^ round_keys[i]), num_rows)
        column = _shift(column, _below(num_columns, row ^ round_keys[i + 1]), num_columns)
    return row, column


def _shift(x: jax.Array, amount: jax.Array, modulus: jax.Array) -> jax.Array:
    total = x + amount
    return jnp.where(total >= modulus, total - modulus, total)


def _below(bound: jax.Array, x: jax.Array) -> jax.Array:
    """Returns a number below `bound` < 2^16 that depends on every bit of x (finaliser of MurmurHash3, Appleby)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return ((x >> 16) * bound) >> 16
