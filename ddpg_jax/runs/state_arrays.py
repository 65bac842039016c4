"""Training states as named NumPy arrays, and back: how a checkpoint holds them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm.types import is_key
from ddpg_jax.population.blocks import on_host

REPLAY = ".replay.rows"
"""Name of the replay's array, of which a checkpoint holds only the rows that have been written."""


def state_arrays(state: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a training state by their paths in its tree.

    Args:
        state: a tree of JAX arrays [n, ...], or [...] where the agents share one.

    Returns:
        The entries of the agents that this process trains; random keys as their data, the replay as far as filled.
    """
    filled = min(int(state.replay.added), state.replay.rows.shape[1])
    return {name: on_host(leaf, filled if name == REPLAY else None) for name, leaf in _by_path(state).items()}


def restore_state(arrays: dict[str, np.ndarray], like: Any) -> Any:
    """Returns the training state that `state_arrays` took apart.

    Args:
        arrays: what `state_arrays` returned, of any number of agents.
        like: a tree [n, ...] with the structure, shapes and dtypes of the state, apart from the number of agents.

    Raises:
        ValueError: if an array is missing, unknown, or has another shape or dtype.
    """
    require_fit(arrays, jax.eval_shape(_first_agent, like))
    leaves = []
    for name, leaf in _by_path(like).items():
        array = arrays[name]
        if name == REPLAY:
            unwritten = (array.shape[0], leaf.shape[1] - array.shape[1], *array.shape[2:])
            array = np.concatenate([array, np.zeros(unwritten, array.dtype)], axis=1)
        leaves.append(jax.random.wrap_key_data(jnp.asarray(array)) if is_key(leaf) else array)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def require_fit(arrays: dict[str, np.ndarray], like: Any) -> None:
    """Refuses arrays that are not those of agents' training states.

    Args:
        arrays: what `state_arrays` returned, of any number of agents.
        like: the training state of one agent, arrays or their shapes and dtypes.

    Raises:
        ValueError: if an array is missing, unknown, or has another shape or dtype.
    """
    expected = {name: jax.eval_shape(_key_data, leaf) for name, leaf in _by_path(like).items()}
    for name in sorted(set(expected) | set(arrays)):
        if name not in expected:
            raise ValueError(f"{name} is there, but must be missing")
        dtype, shape = expected[name].dtype, expected[name].shape
        if name not in arrays:
            raise ValueError(f"{name} is missing, but must be {dtype}{list(shape)}")
        own_shape = arrays[name].shape[max(0, arrays[name].ndim - len(shape)) :]
        matches = own_shape[1:] == shape[1:] and own_shape[0] <= shape[0] if name == REPLAY else own_shape == shape
        if arrays[name].dtype != dtype or not matches:
            raise ValueError(f"{name} is {arrays[name].dtype}{list(own_shape)}, but must be {dtype}{list(shape)}")


def _by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths, in its order."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _first_agent(tree: Any) -> Any:
    """Returns a tree [n, ...] without its axis of agents."""
    return jax.tree.map(lambda leaf: leaf[0] if leaf.ndim else leaf, tree)


def _key_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
