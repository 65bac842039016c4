"""Everything that a run carries, on disk: what was saved and is loaded again continues in the same bits.

Orbax writes a checkpoint beside the others and renames it when it is whole, so that a kill at any moment leaves the
last good one. A checksum over all arrays tells a damaged one.
"""

import io
import json
import logging
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.config import Config
from ddpg_jax.history import History

KEEP = 2
"""The newest checkpoints that are kept."""

COST_SHARE = 0.05
"""The largest share of a run that may be spent on checkpoints: a costly one makes the next wait longer."""


class Saved(NamedTuple):
    """The content of a checkpoint."""

    finished: list[tuple[History, np.ndarray]]
    """History and final returns of the waves that have ended."""
    history: History
    """Of the wave under way."""
    states: list[dict[str, np.ndarray]]
    """Of its blocks: the arrays of a training state by their path in the tree."""
    seconds: dict[str, float]
    """What the stopwatch counted."""


class Checkpoints:
    """The checkpoints of a run folder."""

    def __init__(self, folder: Path, every: float) -> None:
        """Args:
        folder: where they go.
        every: seconds between two of them, at least.
        """
        self._folder, self._every = folder, every
        self._cost, self._last = 0.0, time.perf_counter()

    def due(self) -> bool:
        """Whether it is time for one."""
        wait = max(self._every, self._cost * (1 / COST_SHARE - 1))
        return time.perf_counter() - self._last >= wait

    def save(self, saved: Saved) -> None:
        """Writes one, and removes the oldest beyond those that are kept.

        Raises:
            OSError: if it cannot be written; the earlier ones are as they were.
        """
        ocp = _orbax()
        start = time.perf_counter()
        number = max(self.numbers(), default=0) + 1
        states = {f"{index:06d}": state for index, state in enumerate(saved.states)}
        host = _to_bytes(saved)
        tree = {"states": states, "host": host, "checksum": np.array([_checksum(states, host)], np.uint32)}
        try:
            with self._manager() as manager:
                manager.save(number, args=ocp.args.StandardSave(tree))
                manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore raise errors of their own
            raise OSError(f"the checkpoint could not be written: {_first_line(error)}") from error
        self._last = time.perf_counter()
        self._cost = self._last - start

    def load(self, number: int, config: Config) -> Saved:
        """The content of the checkpoint of that number.

        Raises:
            ValueError: if it is damaged, or not one of a run of this configuration.
        """
        ocp = _orbax()
        try:
            with self._manager() as manager:
                tree = manager.restore(number, args=ocp.args.StandardRestore())
            sound = _checksum(tree["states"], tree["host"]) == tree["checksum"].item()
            saved = _from_bytes(tree, config) if sound else None
        except Exception as error:  # whatever a damaged file makes Orbax, TensorStore, zip or JSON raise
            raise ValueError(f"checkpoint {self._folder / str(number)} is damaged: {_first_line(error)}") from error
        if saved is None:
            raise ValueError(f"checkpoint {self._folder / str(number)} is damaged: its checksum does not match")
        return saved

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints that are there, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def _manager(self) -> Any:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._folder.absolute(), options=options)


def _orbax() -> Any:
    """Orbax, which takes seconds to import and is not always needed."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    import orbax.checkpoint

    return orbax.checkpoint


def state_arrays(state: Any) -> dict[str, np.ndarray]:
    """A tree of arrays as NumPy arrays by their path, keys as their data."""
    paths, _ = jax.tree_util.tree_flatten_with_path(jax.tree.map(_key_data, state))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def restore_state(arrays: dict[str, np.ndarray], like: Any) -> Any:
    """The tree with the structure and the dtypes of `like` (arrays or shapes) that `state_arrays` took apart.

    Raises:
        ValueError: if an array is missing, or has another shape or dtype.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path)
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        expected = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        found = arrays.get(name)
        if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
            there = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ValueError(f"{name} is {there}, but must be {expected.dtype}{list(expected.shape)}")
        leaves.append(jax.random.wrap_key_data(jnp.asarray(found)) if is_key else found)
    return jax.tree.unflatten(structure, leaves)


def _key_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _checksum(states: dict[str, dict[str, np.ndarray]], host: np.ndarray) -> int:
    checksum = zlib.crc32(host.tobytes())
    for block in sorted(states):
        for name in sorted(states[block]):
            checksum = zlib.crc32(name.encode(), checksum)
            checksum = zlib.crc32(states[block][name].tobytes(), checksum)
    return checksum


def _to_bytes(saved: Saved) -> np.ndarray:
    """What the host holds, as the bytes of a NumPy archive."""
    meta = {"seconds": saved.seconds, "num_finished": len(saved.finished)}
    arrays: dict[str, np.ndarray] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for index, (history, final_returns) in enumerate(saved.finished):
        arrays |= {f"finished/{index}/{name}": array for name, array in history.to_arrays().items()}
        arrays[f"finished/{index}/final_returns"] = final_returns
    arrays |= {f"history/{name}": array for name, array in saved.history.to_arrays().items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return np.frombuffer(file.getvalue(), np.uint8)


def _from_bytes(tree: Any, config: Config) -> Saved:
    archive = np.load(io.BytesIO(np.asarray(tree["host"]).tobytes()), allow_pickle=False)
    arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(arrays["meta"].tobytes())

    def below(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    finished = []
    for index in range(meta["num_finished"]):
        part = below(f"finished/{index}/")
        finished.append((History.from_arrays(part, config), part["final_returns"]))
    states = [tree["states"][name] for name in sorted(tree["states"])]
    return Saved(finished, History.from_arrays(below("history/"), config), states, meta["seconds"])


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
