"""Checkpoints: everything that a run holds, in one file, so that a run that loads it continues in the same bits.

`checkpoints/<number>.safetensors` has the states of the agents that are training, what has been measured of them, and
the results of the setups before theirs. A file is written as a draft and renamed when it is whole, so a kill at any
moment leaves the last good one. A checksum detects a damaged file, which gives way to the one before it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.results.history import History
from ddpg_jax.results.summary import Finals
from ddpg_jax.training.arrays import ArrayFile, ArrayPieces, read_arrays, whole, write_arrays
from ddpg_jax.training.trainer import Trainer

FORMAT = 5
"""Version of a checkpoint's content; all others are refused."""

KEEP = 2
"""Number of checkpoints that are kept, the newest."""

DEFAULT_SECONDS = 60.0
"""Seconds between two checkpoints, unless the user sets them."""

COST_SHARE = 0.05
"""The largest share of a run that is spent on checkpoints, unless the user sets how often they are written."""


class Trained(NamedTuple):
    """What is left of the agents of a setup when they have been trained."""

    history: History
    finals: Finals


class Checkpoint:
    """A checkpoint that has been read and found whole. The agents' states are read when they are asked for."""

    def __init__(self, description: Mapping[str, Any], file: ArrayFile) -> None:
        """Reads everything except the agents' states."""
        self._file = file
        self.seconds: dict[str, float] = description["seconds"]
        self.finished = [self._trained(f"finished/{i}/") for i in range(description["num_finished"])]
        self.history = History.from_arrays(self._with_prefix("history/"))

    def restore(self, trainer: Trainer) -> None:
        """Continues the agents of a trainer from their saved states."""
        trainer.restore(lambda name, rows: self._file.read(f"state/{name}", rows))

    def _trained(self, prefix: str) -> Trained:
        history = History.from_arrays(self._with_prefix(f"{prefix}history/"))
        return Trained(history, Finals(**self._with_prefix(f"{prefix}finals/")))

    def _with_prefix(self, prefix: str) -> dict[str, np.ndarray]:
        names = [name for name in self._file.names if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._file.read(name) for name in names}


class Checkpoints:
    """The checkpoints of a run folder."""

    def __init__(self, folder: Path, *, every: float | None) -> None:
        """Args:
        folder: where the checkpoints are.
        every: seconds between two of them; default: a minute, or longer where they would cost more than `COST_SHARE`.
        """
        self._folder, self._every = folder, every
        self._last, self._cost = time.perf_counter(), 0.0
        self._damaged: list[Path] = []

    def due(self) -> bool:
        """Returns whether it is time for the next checkpoint."""
        every = max(DEFAULT_SECONDS, self._cost / COST_SHARE) if self._every is None else self._every
        return time.perf_counter() - self._last >= every

    def save(self, trainer: Trainer, history: History, finished: list[Trained], seconds: Mapping[str, float]) -> None:
        """Writes a checkpoint, and removes the oldest beyond `KEEP`, and damaged ones.

        Raises:
            OSError: if it cannot be written; the earlier ones are as they were.
        """
        start = time.perf_counter()
        number = max((int(path.stem) for path in self._paths()), default=0) + 1
        description = {
            "format": FORMAT, "env_steps": history.env_steps, "num_finished": len(finished), "seconds": dict(seconds),
        }  # fmt: skip
        self._folder.mkdir(parents=True, exist_ok=True)
        write_arrays(self._folder / f"{number:06d}.safetensors", description, list(_arrays(trainer, history, finished)))
        drafts = self._folder.glob(".*.part")  # which a kill has left
        for path in (*drafts, *self._damaged, *self._paths()[:-KEEP]):
            path.unlink(missing_ok=True)
        self._damaged = []
        self._last = time.perf_counter()
        self._cost = self._last - start

    def load(self, note: Callable[[str], None]) -> Checkpoint | None:
        """Returns the newest checkpoint that is whole, or None if there is none yet; `note` is given the damaged ones.

        Raises:
            ValueError: if all are damaged, or one belongs to another version.
        """
        paths = self._paths()
        for path in reversed(paths):
            try:
                description, file = read_arrays(path)
            except (ValueError, OSError) as error:
                self._damaged.append(path)
                note(f"{error}; trying the checkpoint before it")
                continue
            if description.get("format") != FORMAT:
                raise ValueError(f"{path} has format {description.get('format')}, but must have format {FORMAT}: "
                                 f"resume it with the version of ddpg_jax that wrote it")  # fmt: skip
            return Checkpoint(description, file)
        if paths:
            raise ValueError(f"resume is {self._folder.parent}, but all of its checkpoints are damaged: run it anew")
        return None

    def _paths(self) -> list[Path]:
        """Returns the files of the checkpoints, the oldest first."""
        with suppress(OSError):
            return sorted(path for path in self._folder.glob("*.safetensors") if path.stem.isdecimal())
        return []


def _arrays(trainer: Trainer, history: History, finished: list[Trained]) -> Iterator[ArrayPieces]:
    """Yields all arrays of a checkpoint."""
    for index, trained in enumerate(finished):
        yield from _named(f"finished/{index}/history/", trained.history.to_arrays())
        yield from _named(f"finished/{index}/finals/", trained.finals._asdict())
    yield from _named("history/", history.to_arrays())
    for array in trainer.saved_arrays():
        yield array._replace(name=f"state/{array.name}")


def _named(prefix: str, arrays: Mapping[str, np.ndarray]) -> Iterator[ArrayPieces]:
    return (whole(f"{prefix}{name}", array) for name, array in arrays.items())
