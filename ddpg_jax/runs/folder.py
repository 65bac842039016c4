"""The folder that a run leaves behind: where it is made, who may write in it, and its tables."""

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ddpg_jax.processes.files import write_text
from ddpg_jax.processes.folder_lock import FolderLock
from ddpg_jax.results.history import History
from ddpg_jax.results.tables import episodes_csv, metrics_csv
from ddpg_jax.runs.json_files import read_config

SHARED_SECONDS = 10
"""The longest time until all processes of a run see a file that one of them has made."""

TABLES_SHARE = 0.02
"""The largest share of a run that is spent on writing tables before its end."""


class RunFolder:
    """The folder of a run. While one process has entered it, other processes cannot."""

    def __init__(self, path: Path, made: Sequence[Path] | None = None) -> None:
        """Args:
        path: the folder.
        made: the folders that this process has made for a new run, deepest first, which are removed if nothing is
            written; None: the folder is an earlier run's, or another process's.
        """
        self.path = path
        self._made = made
        self._lock = FolderLock(path)
        self._tables_due = 0.0

    @staticmethod
    def create(path: Path) -> "RunFolder":
        """Makes a new folder, or takes an empty one.

        Raises:
            ValueError: if there is something in it already.
            OSError: if it cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"out is {path}, but must be a new or an empty folder")
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path, missing)

    @staticmethod
    def create_first(paths: Iterable[Path]) -> "RunFolder":
        """Makes a new folder at the first of the paths where there is nothing yet.

        Raises:
            ValueError: if there is something at each of them.
            OSError: if it cannot be made.
        """
        for path in paths:
            missing = [folder for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return RunFolder(path, [path, *missing])
        raise ValueError("out is not given, but must be: a thousand folders of this second exist already")

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """Returns the folder of an earlier run.

        Raises:
            ValueError: if it is not the folder of a run.
        """
        read_config(path)
        return RunFolder(path)

    def __enter__(self) -> "RunFolder":
        """Raises ValueError if another process has entered the folder, OSError if it cannot be written."""
        try:
            self._lock.acquire()
        except BlockingIOError:
            holder = self._lock.holder()
            raise ValueError(f"{self.path} is in use by process {holder}: wait for it or stop it") from None
        except OSError:
            self.leave()
            raise
        return self

    @property
    def note(self) -> str | None:
        """A warning to the user about the folder that was entered."""
        return self._lock.note

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Lets other processes enter; removes the folders that were made for a run that has written nothing."""
        with suppress(OSError):
            if self._made is not None and set(self.path.iterdir()) <= {self._lock.path}:
                self._lock.path.unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()
        self._lock.release()

    def is_entered(self) -> bool:
        """Returns whether this process sees that one has entered, which takes a while on a network's file system."""
        for _ in range(SHARED_SECONDS):
            if self._lock.path.exists():
                return True
            time.sleep(1)
        return False

    def is_finished(self, total_steps: int) -> bool:
        """Returns whether a run of at least so many environment steps per agent has left its summary here."""
        try:
            summary = json.loads((self.path / "summary.json").read_text())
            return bool(summary["env_steps_per_agent"] >= total_steps)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def tables_due(self) -> bool:
        """Returns whether writing the tables now stays within `TABLES_SHARE`."""
        return time.perf_counter() >= self._tables_due

    def write_tables(self, histories: list[History], num_seeds: int | None) -> None:
        """Writes `metrics.csv` and `episodes.csv`.

        Args:
            histories: of all agents.
            num_seeds: the number of agents per point of a sweep; None outside of a sweep.

        Raises:
            OSError: if one cannot be written; the message names it.
        """
        start = time.perf_counter()
        write_text(self.path / "metrics.csv", metrics_csv(histories, num_seeds))
        write_text(self.path / "episodes.csv", episodes_csv(histories, num_seeds))
        end = time.perf_counter()
        self._tables_due = end + (end - start) / TABLES_SHARE
