"""Training states as named NumPy arrays, and back: what a checkpoint holds of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.population.blocks import is_key, on_host

REPLAY = ".replay.rows"
"""Of the replay only the rows that have been written are kept."""


def state_arrays(state: Any) -> dict[str, np.ndarray]:
    """A training state by the paths in its tree: this process's agents, keys as their data, the replay as filled."""
    filled = min(int(state.replay.added), state.replay.rows.shape[1])
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
    return {name: on_host(leaf, filled if name == REPLAY else None) for name, leaf in arrays.items()}


def restore_state(arrays: dict[str, np.ndarray], like: Any) -> Any:
    """The tree with the structure and the dtypes of `like` that `state_arrays` took apart, but for the agents' axis.

    Raises:
        ValueError: if an array is missing, or has another shape or dtype.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path)
        expected = jax.eval_shape(_key_data, leaf)
        found = arrays.get(name)
        if name == REPLAY and found is not None:
            empty = np.zeros((found.shape[0], expected.shape[1] - found.shape[1], *found.shape[2:]), found.dtype)
            found = np.concatenate([found, empty], axis=1)
        if found is None or found.shape[1:] != expected.shape[1:] or found.dtype != expected.dtype:
            there = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ValueError(f"{name} is {there}, but must be {expected.dtype}{list(expected.shape)}")
        leaves.append(jax.random.wrap_key_data(jnp.asarray(found)) if is_key(leaf) else found)
    return jax.tree.unflatten(structure, leaves)


def require_fit(arrays: dict[str, np.ndarray], like: Any) -> None:
    """Refuses arrays that are not those of some agents, each of which is `like` this one.

    Raises:
        ValueError: if one is missing, is not known, or has another shape or dtype.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(like)
    expected = {jax.tree_util.keystr(path): jax.eval_shape(_key_data, leaf) for path, leaf in paths}
    for path in sorted(set(expected) | set(arrays)):
        here, there = arrays.get(path), expected.get(path)
        if here is None or there is None:
            raise ValueError(f"{path} is {'missing' if here is None else 'not known'}")
        shape = list(here.shape[here.ndim - len(there.shape) :])
        wanted = list(there.shape)
        if path == REPLAY and shape[0] <= wanted[0]:
            shape[0] = wanted[0]
        if here.dtype != there.dtype or shape != wanted:
            raise ValueError(f"{path} is {here.dtype}{shape}, but must be {there.dtype}{wanted}")


def _key_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
