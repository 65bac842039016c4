"""Everything that a run carries, on disk: what was saved and is loaded again continues in the same bits.

Orbax writes a checkpoint beside the others and renames it when it is whole, so that a kill at any moment leaves the
last good one. A checksum over all arrays tells a damaged one, and the run's own description tells another run's.
"""

import functools
import io
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.config import Config
from ddpg_jax.history import History

FORMAT = 1
"""Version of the content; a newer one is refused."""

KEEP = 2
"""The newest checkpoints that are kept."""

DEFAULT_SECONDS = 60.0
"""Between two checkpoints, unless the user says otherwise."""

COST_SHARE = 0.05
"""The largest share of a run that may be spent on checkpoints, unless the user says how often they are written."""

BYTES_PER_SECOND = 150e6
"""What a checkpoint's bytes are expected to cost before one has been written (measured: `docs/reliability.md`)."""

REPLAY = ".replay.rows"
"""Of the replay only the rows that have been written are saved."""


class Saved(NamedTuple):
    """The content of a checkpoint."""

    finished: list[tuple[History, np.ndarray, np.ndarray]]
    """History, final returns and selection returns of the waves that have ended (see `session.WaveResult`)."""
    history: History
    """Of the wave under way."""
    states: list[dict[str, np.ndarray]]
    """Of its blocks: the arrays of a training state by their path in the tree."""
    seconds: dict[str, float]
    """What the stopwatch counted."""


class Checkpoints:
    """The checkpoints of a run folder."""

    def __init__(
        self, folder: Path, *, every: float | None, run: Mapping[str, Any] | None = None, expected_bytes: float = 0.0
    ) -> None:
        """Args:
        folder: where they go.
        every: seconds between two of them; None: a minute, or as many as keep their cost within `COST_SHARE`.
        run: what makes this run the one that it is; the checkpoints of a run with other values are refused.
        expected_bytes: what one will hold, to guess the cost of the first.
        """
        self._folder, self._every, self._run = folder, every, dict(run or {})
        self._start = self._last = time.perf_counter()
        self._cost, self._spent = expected_bytes / BYTES_PER_SECOND, 0.0
        self._abandoned: list[int] = []

    def due(self) -> bool:
        """Whether it is time for one."""
        now = time.perf_counter()
        if self._every is not None:
            return now - self._last >= self._every
        # One is written at the end in any case, so a costly one must leave room for that.
        affordable = self._spent + 2 * self._cost <= COST_SHARE * (now - self._start)
        return affordable and now - self._last >= DEFAULT_SECONDS

    def save(self, saved: Saved) -> None:
        """Writes one, and removes the oldest beyond those that are kept.

        Raises:
            OSError: if it cannot be written; the earlier ones are as they were.
        """
        start = time.perf_counter()
        self._write(saved)
        for other in self._abandoned:
            self._remove(other)
        self._abandoned = []
        for other in self.numbers()[:-KEEP]:
            self._remove(other)
        self._last = time.perf_counter()
        self._cost = self._last - start
        self._spent += self._cost

    def _write(self, saved: Saved) -> None:
        self._remove_drafts()
        number = max(self.numbers(), default=0) + 1
        states = {f"{index:06d}": state for index, state in enumerate(saved.states)}
        host = _to_bytes(saved, self._run)
        tree = {"states": states, "host": host, "checksum": np.array([_checksum(states, host)], np.uint32)}
        size = host.nbytes + sum(array.nbytes for state in saved.states for array in state.values())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            if free < size:
                raise OSError(f"it takes {size / 2**20:,.1f} MiB, the disk has {free / 2**20:,.1f} MiB")
            with self._manager() as manager:
                if not manager.save(number, args=_orbax().args.PyTreeSave(tree)):
                    raise OSError(f"Orbax has not written number {number}")
                manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore raise errors of their own
            self._remove_drafts()
            raise OSError(f"the checkpoint could not be written: {_reason(error)}") from error

    def load(self, number: int, config_of: Callable[[int], Config], like: Callable[[int], Any] | None = None) -> Saved:
        """The content of the checkpoint of that number. Those after it are removed once a new one has been written.

        Args:
            number: one of `numbers()`.
            config_of: an agent's configuration.
            like: an agent's training state, arrays or shapes; None: it is not compared.

        Raises:
            ValueError: if it is damaged, of a newer format, or of another run.
        """
        name = f"checkpoint {self._path(number)}"
        try:
            with self._manager() as manager:
                tree = manager.restore(number, args=_orbax().args.PyTreeRestore())
            if _checksum(tree["states"], tree["host"]) != tree["checksum"].item():
                raise ValueError("its checksum does not match")
            archive = _archive(tree["host"])
            meta = json.loads(archive["meta"].tobytes())
        except Exception as error:  # whatever a damaged file makes Orbax, TensorStore, zip or JSON raise
            raise ValueError(f"{name} is damaged: {_reason(error)}") from error
        if meta["format"] > FORMAT:
            raise ValueError(f"{name} has format {meta['format']}, newer than {FORMAT}: update ddpg_jax")
        for field, value in meta["run"].items():
            if field in self._run and value != self._run[field]:
                raise ValueError(f"{name} belongs to another run: its {field} is {value}, here {self._run[field]}")
        states = [tree["states"][block] for block in sorted(tree["states"])]
        saved = _from_archive(archive, meta, states, config_of)
        if like is not None:
            for state in states:
                _require_fit(state, like(int(saved.history.agents[0])), name)
        self._abandoned = [other for other in self.numbers() if other > number]
        return saved

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints that are there, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def prepare(self) -> None:
        """Begins to load what writing one takes, beside whatever the caller does next."""
        threading.Thread(target=_orbax, daemon=True).start()

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _remove(self, number: int) -> None:
        """Removes a checkpoint: at once, so that no kill leaves a part of it under its number."""
        remains = self._folder / f"{number}.orbax-checkpoint-tmp-removed"
        self._path(number).rename(remains)
        shutil.rmtree(remains, ignore_errors=True)

    def _remove_drafts(self) -> None:
        """Removes what a kill or a full disk left of checkpoints that were not whole, or no longer."""
        for draft in self._folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(draft, ignore_errors=True)

    def _manager(self) -> Any:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
        # Uncompressed, because these numbers hardly shrink and compressing them takes half of the time.
        handler = ocp.PyTreeCheckpointHandler(use_compression=False)
        return ocp.CheckpointManager(self._folder.absolute(), options=options, item_handlers=handler)


@functools.cache
def _orbax() -> Any:
    """Orbax, which takes a while to import and is not always needed.

    It and TensorStore report an error that they raise several times more, on their own, from threads and from event
    loops that are closed by then. That is silenced: one line is what the user needs.
    """
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    import orbax.checkpoint

    sys.unraisablehook = report_others
    logging.getLogger("asyncio").addFilter(lambda record: not re.search("orbax|OCDBT", record.getMessage()))
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    return orbax.checkpoint


def state_arrays(state: Any) -> dict[str, np.ndarray]:
    """A training state as NumPy arrays by their path in the tree, keys as their data, the replay as far as filled."""
    filled = min(int(state.replay.added), state.replay.rows.shape[1])
    paths, _ = jax.tree_util.tree_flatten_with_path(jax.tree.map(_key_data, state))
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
    return {name: _on_host(leaf, filled if name == REPLAY else None) for name, leaf in arrays.items()}


def _on_host(array: jax.Array, rows: int | None) -> np.ndarray:
    """The array [n, ...], or the first rows of its second axis, from the devices that hold its parts."""
    if array.is_fully_replicated:
        return np.asarray(array)[:, :rows] if rows is not None else np.asarray(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    parts = [np.asarray(shard.data) for shard in shards]
    return np.concatenate([part if rows is None else part[:, :rows] for part in parts])


def restore_state(arrays: dict[str, np.ndarray], like: Any) -> Any:
    """The tree with the structure and the dtypes of `like` (arrays or shapes) that `state_arrays` took apart.

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
        if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
            there = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ValueError(f"{name} is {there}, but must be {expected.dtype}{list(expected.shape)}")
        leaves.append(jax.random.wrap_key_data(jnp.asarray(found)) if _is_key(leaf) else found)
    return jax.tree.unflatten(structure, leaves)


def _require_fit(arrays: dict[str, np.ndarray], like: Any, name: str) -> None:
    """Refuses arrays that are not those of a block of agents, each of which is `like` this one.

    Raises:
        ValueError: if one is missing, is not known, or has another shape or dtype.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(like)
    expected = {jax.tree_util.keystr(path): jax.eval_shape(_key_data, leaf) for path, leaf in paths}
    for path in sorted(set(expected) | set(arrays)):
        here, there = arrays.get(path), expected.get(path)
        if here is None or there is None:
            raise ValueError(f"{name} does not fit: {path} is {'missing' if here is None else 'not known'}")
        shape = list(here.shape[here.ndim - len(there.shape) :])
        wanted = list(there.shape)
        if path == REPLAY and shape[0] <= wanted[0]:
            shape[0] = wanted[0]
        if here.dtype != there.dtype or shape != wanted:
            raise ValueError(f"{name} does not fit: {path} is {here.dtype}{shape}, but must be {there.dtype}{wanted}")


def _is_key(leaf: Any) -> bool:
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _key_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _checksum(states: dict[str, dict[str, np.ndarray]], host: np.ndarray) -> int:
    checksum = zlib.crc32(host.tobytes())
    for block in sorted(states):
        for name in sorted(states[block]):
            array = np.ascontiguousarray(states[block][name])
            checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
            checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _to_bytes(saved: Saved, run: Mapping[str, Any]) -> np.ndarray:
    """What the host holds, as the bytes of a NumPy archive."""
    meta = {"format": FORMAT, "run": run, "seconds": saved.seconds, "num_finished": len(saved.finished)}
    arrays: dict[str, np.ndarray] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for index, (history, final_returns, selection_returns) in enumerate(saved.finished):
        arrays |= {f"finished/{index}/{name}": array for name, array in history.to_arrays().items()}
        arrays[f"finished/{index}/final_returns"] = final_returns
        arrays[f"finished/{index}/selection_returns"] = selection_returns
    arrays |= {f"history/{name}": array for name, array in saved.history.to_arrays().items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return np.frombuffer(file.getvalue(), np.uint8)


def _archive(data: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays that `_to_bytes` packed."""
    with np.load(io.BytesIO(np.asarray(data).tobytes()), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _from_archive(
    archive: dict[str, np.ndarray],
    meta: dict[str, Any],
    states: list[dict[str, np.ndarray]],
    config_of: Callable[[int], Config],
) -> Saved:
    def below(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in archive.items() if name.startswith(prefix)}

    def history(prefix: str) -> History:
        arrays = below(prefix)
        return History.from_arrays(arrays, config_of(int(arrays["agents"][0])))

    finished = []
    for index in range(meta["num_finished"]):
        prefix = f"finished/{index}/"
        finished.append((history(prefix), archive[f"{prefix}final_returns"], archive[f"{prefix}selection_returns"]))
    return Saved(finished, history("history/"), states, meta["seconds"])


def _reason(error: Exception) -> str:
    """What an error comes down to: TensorStore wraps that of the operating system in a page of text."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    if found is not None:
        return os.strerror(int(found[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(" [tensorstore_spec")[0].rpartition('": ')[2][:200]
