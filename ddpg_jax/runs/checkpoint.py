"""Checkpoints: everything that a run holds, on disk, so that a run that loads it continues in the same bits.

A checkpoint is a folder of safetensors files, named by its number:

    run.safetensors                     the results of the waves that have ended, counters, and the run's description
    history-000000-000016.safetensors   what the agents 0 to 15 have measured; one file per process
    agents-000000-000008.safetensors    the training states of the agents 0 to 7; one file per portion

It is written as a draft next to the others and renamed when it is whole, so a kill at any moment leaves the last good
one. Each portion is written as soon as it has been copied from the devices: so a checkpoint needs little memory, every
process writes its own agents, and any other number of processes can read what each of them needs. A checksum in every
file tells a damaged checkpoint, and the run's description tells the checkpoint of another run.
"""

import functools
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config import Config
from ddpg_jax.processes.files import error_that_names
from ddpg_jax.processes.team import ALONE, Team
from ddpg_jax.results.history import History
from ddpg_jax.results.summary import WaveResult
from ddpg_jax.runs.array_files import read_arrays, write_arrays
from ddpg_jax.runs.state_arrays import require_fit

FORMAT = 4
"""Version of a checkpoint's content; all others are refused."""

KEEP = 2
"""Number of checkpoints that are kept, the newest."""

DEFAULT_SECONDS = 60.0
"""Seconds between two checkpoints, unless the user sets them."""

COST_SHARE = 0.05
"""The largest share of a run that may be spent on checkpoints, unless the user sets how often they are written."""

BYTES_PER_SECOND = 150e6
"""Assumed speed of writing a checkpoint before one has been written (measured: `docs/reliability.md`)."""

RUN, HISTORY, AGENTS = "run", "history", "agents"
"""Beginnings of the names of a checkpoint's files."""

OLDER_FORMATS = {"default": 1, "run": 2}
"""Folders that only a checkpoint of an older format has, with that format."""

MEASURED = ("final_return", "final_shortfall", "selection_return", "share_at_bounds")
"""The measurements of a wave that has ended, arrays [N], in addition to its history."""


class Saved(NamedTuple):
    """The content of a checkpoint, without the states and the history of the agents that are training."""

    finished: list[WaveResult]
    """The results of the waves that have ended."""
    agents: range
    """The agents that are training."""
    env_steps: int
    """Environment steps that each of them has made."""
    seconds: dict[str, float]
    """What the stopwatch has counted."""


class Checkpoint:
    """A checkpoint that has been read and found whole. What belongs to agents is read again when it is asked for."""

    def __init__(self, path: Path, saved: Saved, config_of: Callable[[int], Config]) -> None:
        """See `Checkpoints.load`."""
        self.saved = saved
        self._path, self._config_of = path, config_of
        self._read = functools.lru_cache(maxsize=2)(read_arrays)  # the next agents often lie in the same file

    def history(self, agents: range) -> History:
        """Returns what some of the agents that are training have measured."""
        histories = [_history(read_arrays(path)[0], self._config_of) for path, _ in _files(self._path, HISTORY, agents)]
        return History.join(histories).of(agents)

    def states(self, agents: range) -> dict[str, np.ndarray]:
        """Returns the training states of some of the agents that are training, in the form of `state_arrays`."""
        parts = []
        for path, there in _files(self._path, AGENTS, agents):
            within = slice(max(agents.start - there.start, 0), agents.stop - there.start)
            arrays, _ = self._read(path)
            parts.append({name: array[within] if array.ndim else array for name, array in arrays.items()})
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
        folder: where the checkpoints are.
        every: seconds between two of them; None: a minute, or longer where they would cost more than `COST_SHARE`.
        run: the run's description, values that JSON can hold: a checkpoint with other values for the same names is
            refused.
        expected_bytes: the bytes that each process will write, to estimate the cost of the first checkpoint.
        team: the processes of the run.
        """
        self._folder, self._every, self._run, self._team = folder, every, dict(run or {}), team
        self._start = self._last = time.perf_counter()
        self._cost, self._spent = expected_bytes / BYTES_PER_SECOND, 0.0
        self._abandoned: list[int] = []

    def due(self) -> bool:
        """Returns whether it is time for the next checkpoint."""
        now = time.perf_counter()
        if self._every is not None:
            return now - self._last >= self._every
        # One checkpoint is always written at the end, and must be affordable, too.
        affordable = self._spent + 2 * self._cost <= COST_SHARE * (now - self._start)
        return affordable and now - self._last >= DEFAULT_SECONDS

    def numbers(self) -> list[int]:
        """Returns the numbers of the checkpoints in the folder, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def save(self, saved: Saved, history: History, states: Iterable[tuple[range, dict[str, np.ndarray]]]) -> None:
        """Writes a checkpoint, and removes the oldest beyond `KEEP`. All processes call it together.

        Args:
            saved: what belongs to the whole run; only the first process's is written.
            history: of the agents that this process trains.
            states: the agents that this process trains in portions, with their states in the form of `state_arrays`.

        Raises:
            OSError: if the checkpoint cannot be written; the earlier ones are as they were.
        """
        start = time.perf_counter()
        self._write(saved, history, states)
        self._team.first(self._remove_others)
        self._abandoned = []
        self._last = time.perf_counter()
        self._cost = self._last - start
        self._spent += self._cost

    def _write(self, saved: Saved, history: History, states: Iterable[tuple[range, dict[str, np.ndarray]]]) -> None:
        number = self._team.first(self._begin)
        draft, path = self._draft(number), self._path(number)

        def write() -> None:
            with error_that_names(f"checkpoint {path}"):
                if self._team.is_first:
                    write_arrays(draft / f"{RUN}.safetensors", *_pack(saved, self._run))
                if len(history.agents):
                    agents = range(history.agents[0], history.agents[-1] + 1)
                    write_arrays(draft / _file_name(HISTORY, agents), history.to_arrays())
                for agents, arrays in states:
                    write_arrays(draft / _file_name(AGENTS, agents), arrays)

        def rename() -> None:
            with error_that_names(f"checkpoint {path}"):
                draft.rename(path)

        try:
            self._team.every(write)
            self._team.first(rename)
        except OSError:
            self._team.first(self._remove_drafts)
            raise

    def _begin(self) -> int:
        """Returns the number of the next checkpoint, and makes the folder of its draft."""
        self._remove_drafts()
        number = max(self.numbers(), default=0) + 1
        with error_that_names(f"checkpoint {self._path(number)}"):
            self._draft(number).mkdir(parents=True)
        return number

    def load(
        self, number: int, config_of: Callable[[int], Config], like: Callable[[int], Any] | None = None
    ) -> Checkpoint:
        """Returns a checkpoint. Those after it are removed once a new one has been written.

        Args:
            number: one of `numbers()`.
            config_of: returns an agent's configuration.
            like: returns an agent's training state, arrays or their shapes and dtypes; None: any will do.

        Raises:
            ValueError: if it is damaged, has another format, belongs to another run, or does not fit `like`.
        """
        path = self._path(number)
        opened: list[Saved] = []  # in each process, without sending it to the others
        self._team.every(lambda: opened.append(self._open(path, config_of)))
        self._team.every(lambda: self._check(path, opened[0].agents, like))
        self._abandoned = [other for other in self.numbers() if other > number]
        self._team.first(self._remove_drafts)
        return Checkpoint(path, opened[0], config_of)

    def _open(self, path: Path, config_of: Callable[[int], Config]) -> Saved:
        """Returns what belongs to the whole run; raises ValueError as `load`."""
        for name, version in OLDER_FORMATS.items():
            if (path / name).is_dir():
                _check_format(path, version)
        arrays, description = _read(path, path / f"{RUN}.safetensors")
        _check_format(path, description["format"])
        for field, value in description["run"].items():
            if field in self._run and value != self._run[field]:
                raise ValueError(
                    f"checkpoint {path} belongs to another run: its {field} is {value}, here {self._run[field]}"
                )
        return _unpack(arrays, description, config_of)

    def _check(self, path: Path, agents: range, like: Callable[[int], Any] | None) -> None:
        """Reads the files of agents, divided among the processes; raises ValueError as `load`."""
        for kind in (HISTORY, AGENTS):
            files = _files(path, kind, agents)
            if [agent for _, some in files for agent in some] != list(agents):
                num_agents = sum(len(some) for _, some in files)
                raise ValueError(
                    f"checkpoint {path} is damaged: its {kind} files have {num_agents} of {len(agents)} agents"
                )
            for file, some in files[self._team.index :: self._team.size]:
                arrays, _ = _read(path, file)
                if kind == AGENTS and like is not None:
                    try:
                        require_fit(arrays, like(some.start))
                    except ValueError as error:
                        raise ValueError(f"checkpoint {path} does not fit: {error}") from error

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _draft(self, number: int) -> Path:
        return self._folder / f".{number}.part"

    def _remove_others(self) -> None:
        """Removes the checkpoints after the one that was loaded, and the oldest beyond `KEEP`."""
        for other in self._abandoned:
            self._remove(other)
        for other in self.numbers()[:-KEEP]:
            self._remove(other)

    def _remove(self, number: int) -> None:
        """Removes a checkpoint; a kill meanwhile leaves a draft, not a part of a checkpoint."""
        self._path(number).rename(self._draft(number))
        shutil.rmtree(self._draft(number), ignore_errors=True)

    def _remove_drafts(self) -> None:
        """Removes the drafts that a kill or a full disk has left."""
        for draft in self._folder.glob(".*.part"):
            shutil.rmtree(draft, ignore_errors=True)


def _file_name(kind: str, agents: range) -> str:
    return f"{kind}-{agents.start:06d}-{agents.stop:06d}.safetensors"


def _files(path: Path, kind: str, agents: range) -> list[tuple[Path, range]]:
    """Returns the files of a checkpoint that hold some of these agents, each with all agents that it holds."""
    found = []
    for file in path.glob(f"{kind}-*-*.safetensors"):
        numbers = file.stem.removeprefix(f"{kind}-").split("-")
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            there = range(int(numbers[0]), int(numbers[1]))
            if max(there.start, agents.start) < min(there.stop, agents.stop):
                found.append((file, there))
    return sorted(found, key=lambda pair: pair[1].start)


def _check_format(path: Path, version: int) -> None:
    """Refuses a checkpoint of another format; with an older one, a run would go on with other random numbers."""
    if version < FORMAT:
        raise ValueError(
            f"checkpoint {path} has format {version}, older than {FORMAT}: resume it with the version that wrote it"
        )
    if version > FORMAT:
        raise ValueError(f"checkpoint {path} has format {version}, newer than {FORMAT}: update ddpg_jax")


def _read(checkpoint: Path, file: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Returns the arrays and the description in a file of a checkpoint; raises ValueError if it is damaged."""
    try:
        return read_arrays(file)
    except ValueError as error:
        raise ValueError(f"checkpoint {checkpoint} is damaged: {error}") from error


def _pack(saved: Saved, run: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns what belongs to the whole run as arrays and a description."""
    arrays: dict[str, np.ndarray] = {}
    for index, result in enumerate(saved.finished):
        named = result.history.to_arrays() | {f"measured/{name}": getattr(result, name) for name in MEASURED}
        arrays |= {f"finished/{index}/{name}": array for name, array in named.items()}
    return arrays, {
        "format": FORMAT,
        "run": run,
        "seconds": saved.seconds,
        "num_finished": len(saved.finished),
        "agents": [saved.agents.start, saved.agents.stop],
        "env_steps": saved.env_steps,
    }


def _unpack(arrays: dict[str, np.ndarray], description: dict[str, Any], config_of: Callable[[int], Config]) -> Saved:
    finished = []
    for index in range(description["num_finished"]):
        prefix = f"finished/{index}/"
        named = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
        measured = {name: named[f"measured/{name}"] for name in MEASURED}
        finished.append(WaveResult(_history(named, config_of), **measured))
    return Saved(finished, range(*description["agents"]), description["env_steps"], description["seconds"])


def _history(arrays: dict[str, np.ndarray], config_of: Callable[[int], Config]) -> History:
    return History.from_arrays(arrays, config_of(int(arrays["agents"][0])))
