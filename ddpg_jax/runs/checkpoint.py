"""Everything that a run carries, on disk: what was saved and is loaded again continues in the same bits.

A checkpoint is written beside the others and renamed when it is whole, so that a kill at any moment leaves the last
good one. It holds the agents in portions, each of which Orbax writes as soon as it has been copied from the devices: so
it takes little memory, every process writes its own agents, and another number of processes can read what each needs.
Checksums tell a damaged one, and the run's own description tells another run's.
"""

import functools
import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config import Config
from ddpg_jax.processes.team import ALONE, Team
from ddpg_jax.results.history import History
from ddpg_jax.runs import orbax_items
from ddpg_jax.runs.orbax_items import as_os_error, read_item, reason, write_item
from ddpg_jax.runs.state_arrays import require_fit

FORMAT = 3
"""Version of the content; another one is refused."""

KEEP = 2
"""The newest checkpoints that are kept."""

DEFAULT_SECONDS = 60.0
"""Between two checkpoints, unless the user says otherwise."""

COST_SHARE = 0.05
"""The largest share of a run that may be spent on checkpoints, unless the user says how often they are written."""

BYTES_PER_SECOND = 150e6
"""What a checkpoint's bytes are expected to cost before one has been written (measured: `docs/reliability.md`)."""

RUN, HISTORY, AGENTS = "run", "history", "agents"
"""The folders of a checkpoint: one of the run, one of each process, and one of each portion of agents."""


class Saved(NamedTuple):
    """The content of a checkpoint, but for the agents' states and the history of the wave under way."""

    finished: Sequence[tuple[History, np.ndarray, np.ndarray, np.ndarray]]
    """What the waves that have ended have given (see `results.summary.WaveResult`)."""
    agents: range
    """Of the wave under way."""
    env_steps: int
    """Of each of them."""
    seconds: dict[str, float]
    """What the stopwatch counted."""


class Checkpoint:
    """One that has been read and found sound; what belongs to agents is read again when it is asked for."""

    def __init__(self, path: Path, saved: Saved, config_of: Callable[[int], Config]) -> None:
        self.saved = saved
        self._path, self._config_of = path, config_of
        self._read = functools.lru_cache(maxsize=2)(read_item)  # neighbours lie in the same portion

    def history(self, agents: range) -> History:
        """What these agents of the wave under way had measured."""
        histories = []
        for path, _ in _items(self._path, HISTORY, agents):
            histories.append(_history(_archive(read_item(path)["bytes"]), "", self._config_of))
        return History.join(histories).of(agents)

    def states(self, agents: range) -> dict[str, np.ndarray]:
        """Their training states, as `state_arrays` gave them."""
        parts = []
        for path, there in _items(self._path, AGENTS, agents):
            within = slice(max(agents.start - there.start, 0), agents.stop - there.start)
            state = self._read(path)["state"]
            parts.append({name: array[within] if array.ndim else array for name, array in state.items()})
        return {name: np.concatenate([part[name] for part in parts]) if array.ndim else array
                for name, array in parts[0].items()}  # fmt: skip


class Checkpoints:
    """The checkpoints of a run folder, which the processes of a run write and read together."""

    def __init__(
        self,
        folder: Path,
        *,
        every: float | None,
        run: Mapping[str, Any] | None = None,
        expected_bytes: float = 0.0,
        team: Team = ALONE,
    ) -> None:
        """Args:
        folder: where they go.
        every: seconds between two of them; None: a minute, or as many as keep their cost within `COST_SHARE`.
        run: what makes this run the one that it is; the checkpoints of a run with other values are refused.
        expected_bytes: what each process will write, to guess the cost of the first.
        team: the processes, each of which writes what it holds.
        """
        self._folder, self._every, self._run, self._team = folder, every, dict(run or {}), team
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

    def save(self, saved: Saved, history: History, states: Iterable[tuple[range, dict[str, np.ndarray]]]) -> None:
        """Writes one, and removes the oldest beyond those that are kept.

        Args:
            saved: of the whole run; that of the first process counts.
            history: of this process's agents in the wave under way.
            states: their training states in portions, with the agents' numbers.

        Raises:
            OSError: if it cannot be written; the earlier ones are as they were.
        """
        start = time.perf_counter()
        self._write(saved, history, states)
        self._team.first(self._remove_others)
        self._abandoned = []
        self._last = time.perf_counter()
        self._cost = self._last - start
        self._spent += self._cost

    def _remove_others(self) -> None:
        """Removes those that were gone back behind, and the oldest."""
        for other in self._abandoned:
            self._remove(other)
        for other in self.numbers()[:-KEEP]:
            self._remove(other)

    def _write(self, saved: Saved, history: History, states: Iterable[tuple[range, dict[str, np.ndarray]]]) -> None:
        number = self._team.first(partial(as_os_error, self._begin))
        draft = self._draft(number)

        def write() -> None:
            if self._team.is_first:
                write_item(draft / RUN, {"bytes": _pack_run(saved, self._run)})
            if len(history.agents):
                name = _item_name(HISTORY, history.agents[0], len(history.agents))
                write_item(draft / name, {"bytes": _pack({}, history.to_arrays())})
            for agents, state in states:
                write_item(draft / _item_name(AGENTS, agents.start, len(agents)), {"state": state})

        try:
            self._team.every(partial(as_os_error, write))
            self._team.first(partial(as_os_error, lambda: draft.rename(self._path(number))))
        except OSError:
            self._team.first(self._remove_drafts)
            raise

    def _begin(self) -> int:
        self._remove_drafts()
        number = max(self.numbers(), default=0) + 1
        self._draft(number).mkdir(parents=True, exist_ok=True)
        return number

    def load(
        self, number: int, config_of: Callable[[int], Config], like: Callable[[int], Any] | None = None
    ) -> Checkpoint:
        """The checkpoint of that number. Those after it are removed once a new one has been written.

        Args:
            number: one of `numbers()`.
            config_of: an agent's configuration.
            like: an agent's training state, arrays or shapes; None: it is not compared.

        Raises:
            ValueError: if it is damaged, of another format, or of another run.
        """
        path = self._path(number)
        opened: list[Saved] = []  # in each process, which need not tell the others
        self._team.every(lambda: opened.append(self._open(path, config_of)))
        self._team.every(lambda: self._check(path, opened[0].agents, like))
        self._abandoned = [other for other in self.numbers() if other > number]
        self._team.first(self._remove_drafts)
        return Checkpoint(path, opened[0], config_of)

    def _open(self, path: Path, config_of: Callable[[int], Config]) -> Saved:
        """Reads what belongs to the whole run.

        Raises:
            ValueError: if it is damaged, of another format, or of another run.
        """
        name = f"checkpoint {path}"
        if (path / "default").exists():
            raise ValueError(f"{name} has format 1, older than {FORMAT}: resume it with the version that wrote it")
        try:
            archive = _archive(read_item(path / RUN)["bytes"])
            meta = json.loads(archive["meta"].tobytes())
        except Exception as error:  # whatever a damaged file makes Orbax, TensorStore, zip or JSON raise
            raise ValueError(f"{name} is damaged: {reason(error)}") from error
        if meta["format"] > FORMAT:
            raise ValueError(f"{name} has format {meta['format']}, newer than {FORMAT}: update ddpg_jax")
        if meta["format"] < FORMAT:
            raise ValueError(
                f"{name} has format {meta['format']}, older than {FORMAT}: resume it with the version that wrote it"
            )
        for field, value in meta["run"].items():
            if field in self._run and value != self._run[field]:
                raise ValueError(f"{name} belongs to another run: its {field} is {value}, here {self._run[field]}")
        return _unpack_run(archive, meta, config_of)

    def _check(self, path: Path, agents: range, like: Callable[[int], Any] | None) -> None:
        """Reads what belongs to agents, of which every process takes some.

        Raises:
            ValueError: if it is damaged, incomplete, or not what the run needs.
        """
        name = f"checkpoint {path}"
        for kind in (HISTORY, AGENTS):
            there = [agent for _, some in _items(path, kind, agents) for agent in some]
            if there != list(agents):
                raise ValueError(f"{name} is damaged: its {kind} folders have {len(there)} of {len(agents)} agents")
            for item, some in _items(path, kind, agents)[self._team.index :: self._team.size]:
                try:
                    content = read_item(item)
                except Exception as error:
                    raise ValueError(f"{name} is damaged: {reason(error)}") from error
                if kind == AGENTS and like is not None:
                    try:
                        require_fit(content["state"], like(some.start))
                    except ValueError as error:
                        raise ValueError(f"{name} does not fit: {error}") from error

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints that are there, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def prepare(self) -> None:
        """Begins to load what writing one takes, beside whatever the caller does next."""
        threading.Thread(target=orbax_items.prepare, daemon=True).start()

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

    def _draft(self, number: int) -> Path:
        return self._folder / f"{number}.orbax-checkpoint-tmp"


def _item_name(kind: str, first: int, num_agents: int) -> str:
    return f"{kind}-{first:06d}-{first + num_agents:06d}"


def _items(path: Path, kind: str, agents: range) -> list[tuple[Path, range]]:
    """The folders of a checkpoint that hold something of these agents, with the agents that they hold."""
    found = []
    for item in path.glob(f"{kind}-*-*"):
        numbers = item.name.removeprefix(f"{kind}-").split("-")
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            there = range(int(numbers[0]), int(numbers[1]))
            if max(there.start, agents.start) < min(there.stop, agents.stop):
                found.append((item, there))
    return sorted(found, key=lambda pair: pair[1].start)


def _pack(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the host holds, as the bytes of a NumPy archive."""
    file = io.BytesIO()
    content = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays}
    np.savez(file, **content)  # type: ignore[arg-type]
    return np.frombuffer(file.getvalue(), np.uint8)


def _archive(data: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays that `_pack` packed."""
    with np.load(io.BytesIO(np.asarray(data).tobytes()), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _pack_run(saved: Saved, run: Mapping[str, Any]) -> np.ndarray:
    meta = {
        "format": FORMAT,
        "run": run,
        "seconds": saved.seconds,
        "num_finished": len(saved.finished),
        "agents": [saved.agents.start, saved.agents.stop],
        "env_steps": saved.env_steps,
    }
    arrays: dict[str, np.ndarray] = {}
    for index, (history, *measured) in enumerate(saved.finished):
        arrays |= {f"finished/{index}/{name}": array for name, array in history.to_arrays().items()}
        arrays |= {f"finished/{index}/measured/{place}": array for place, array in enumerate(measured)}
    return _pack(meta, arrays)


def _unpack_run(archive: dict[str, np.ndarray], meta: dict[str, Any], config_of: Callable[[int], Config]) -> Saved:
    finished = []
    for index in range(meta["num_finished"]):
        prefix = f"finished/{index}/"
        final, shortfall, selection = (archive[f"{prefix}measured/{place}"] for place in range(3))
        finished.append((_history(archive, prefix, config_of), final, shortfall, selection))
    return Saved(finished, range(*meta["agents"]), meta["env_steps"], meta["seconds"])


def _history(archive: dict[str, np.ndarray], prefix: str, config_of: Callable[[int], Config]) -> History:
    arrays = {name.removeprefix(prefix): array for name, array in archive.items() if name.startswith(prefix)}
    return History.from_arrays(arrays, config_of(int(arrays["agents"][0])))
