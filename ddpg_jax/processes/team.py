"""The processes that run one training together, and what they exchange between two calls of compiled programs.

Every process trains its own agents, so they exchange little: whether to stop and to save, what has been measured, and
in the end the rows for the statistics. All of it goes through `Team.gather`, over JAX's own distributed runtime.
"""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ddpg_jax.processes.assignment import is_local

T = TypeVar("T")

HEARTBEAT_SECONDS = 20
"""JAX considers a process dead after so long without a message from it. Broken connections are noticed at once."""

_FRAME_BYTES = (2**12, 2**20)
"""Sizes of the first message of an exchange and of all further ones. Each size is one compiled program."""

LOST = 70
"""Exit status of a process that has lost another process of its run."""


class LostProcessError(Exception):
    """Another process of the run is gone."""


class ToldError(OSError):
    """An error of some process, as it is raised in all processes except the first, which reports it."""


def _alone(data: bytes) -> list[bytes]:
    return [data]


@dataclass(frozen=True)
class Team:
    """The processes of a run; without arguments, one process alone. All must call its methods in the same order."""

    index: int = 0
    """The number of this process, from 0. The first process prints, and writes the files that are written once."""
    size: int = 1
    """The number of processes."""
    exchange: Callable[[bytes], list[bytes]] = _alone
    """Sends this process's bytes to all, and returns the bytes of all in the order of the processes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the first process."""
        return self.index == 0

    def gather(self, value: T) -> list[T]:
        """Returns the values of all processes, in their order.

        Raises:
            LostProcessError: if one of the processes is gone.
        """
        if self.size == 1:
            return [value]
        return [pickle.loads(data) for data in self.exchange(pickle.dumps(value))]

    def to_first(self, value: T) -> list[T]:
        """Returns the values of all processes in the first process, and an empty list in the others."""
        if self.size == 1:
            return [value]
        everything = self.exchange(pickle.dumps(value))
        return [pickle.loads(data) for data in everything] if self.is_first else []

    def first(self, action: Callable[[], T]) -> T:
        """Runs `action` in the first process only, and returns its result in every process.

        Raises:
            ValueError: in every process, if the action has raised it.
            OSError: likewise; all processes but the first raise a `ToldError`.
        """
        if self.size == 1:
            return action()
        result, error = None, None
        if self.is_first:
            try:
                result = action()
            except (ValueError, OSError) as raised:
                error = raised
        return self._agreed(self.gather((result, error))[:1])[0]

    def every(self, action: Callable[[], T]) -> list[T]:
        """Runs `action` in every process, and returns the results of all, in the order of the processes.

        Raises:
            ValueError: in every process, if one of the actions has raised it.
            OSError: likewise; all processes but the first raise a `ToldError`.
        """
        if self.size == 1:
            return [action()]
        result, error = None, None
        try:
            result = action()
        except (ValueError, OSError) as raised:
            error = raised
        return self._agreed(self.gather((result, error)))

    def share(self, agents: range) -> range:
        """Returns those of the agents that this process trains.

        They follow one another, and are as many in each process, with fewer or none in the last processes.
        """
        each = -(-len(agents) // self.size)
        return agents[self.index * each : (self.index + 1) * each]

    def _agreed(self, outcomes: Sequence[tuple[Any, Exception | None]]) -> list[Any]:
        """Returns the results of actions, or raises the first error among them in every process."""
        for _, error in outcomes:
            if isinstance(error, OSError) and not self.is_first:
                raise ToldError(str(error))
            if error is not None:
                raise error
        return [result for result, _ in outcomes]


ALONE = Team()
"""The team of a run with one process."""


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    device: int | None = None,
    seconds: int = 300,
) -> Team:
    """Joins the processes of a run, before JAX has started its devices.

    Args:
        coordinator: "host:port" of the first process; None: JAX finds it, and the next two, in the variables of a
            scheduler.
        num_processes: the number of processes.
        process_id: the number of this process, from 0.
        device: the accelerator of this machine that this process uses; None: those that JAX gives it.
        seconds: the time to wait for the other processes.

    Raises:
        ValueError: if JAX detects no cluster, or the other processes are not reached in time.
    """
    import jax

    if is_local(coordinator):  # no proxy is asked there (`supervisor._variables`), so JAX need not warn of one
        logging.getLogger("jax._src.distributed").addFilter(lambda record: "proxy" not in record.getMessage())
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from `signals.py`
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            local_device_ids=device,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        if coordinator is None:
            raise ValueError(
                "distributed is given, but must come with num_processes, for processes on this machine, or with "
                "coordinator, num_processes and process_id, where JAX finds no scheduler that tells them"
            ) from error
        raise ValueError(
            f"coordinator is {coordinator}, but must be one that {num_processes or 'the'} processes reach within "
            f"{seconds} s: {str(error).splitlines()[0]}"
        ) from error
    team = Team(jax.process_index(), jax.process_count(), _exchange)
    with _silent_output():  # the library for collectives announces itself there
        team.gather(b"\0" * _FRAME_BYTES[0])  # compiles the programs for both sizes of messages
    return team


def processes_on_this_host(team: Team) -> int:
    """Returns how many processes of the team share this machine's memory."""
    names = team.gather((socket.gethostname(), _boot_id()))
    return names.count(names[team.index])


def _boot_id() -> str:
    """Returns an identifier of this machine, because several may have the same name."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _exchange(data: bytes) -> list[bytes]:
    """Returns the bytes of all processes.

    The first message has their number and the first of them, and further messages have the rest. Every process sends as
    many messages as the one with the most bytes.
    """
    message = np.frombuffer(len(data).to_bytes(8, "little") + data, np.uint8)
    parts = [_allgather(frame) for frame in _frames(message[: _FRAME_BYTES[0]], _FRAME_BYTES[0])]
    longest = max(int.from_bytes(row[:8].tobytes(), "little") for row in parts[0]) + 8
    rest = np.zeros(max(0, longest - _FRAME_BYTES[0]), np.uint8)
    own = message[_FRAME_BYTES[0] :]
    rest[: len(own)] = own
    parts += [_allgather(frame) for frame in _frames(rest, _FRAME_BYTES[1])]
    rows = np.concatenate(parts, axis=1)
    return [row[8 : 8 + int.from_bytes(row[:8].tobytes(), "little")].tobytes() for row in rows]


def _frames(data: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yields the bytes in pieces of one size; the last is filled up with zeros."""
    for start in range(0, len(data), size):
        frame = np.zeros(size, np.uint8)
        piece = data[start : start + size]
        frame[: len(piece)] = piece
        yield frame


def _allgather(frame: np.ndarray) -> np.ndarray:
    """Returns the frames of all P processes, [P, size]."""
    import jax
    from jax.experimental import multihost_utils

    try:
        return np.asarray(multihost_utils.process_allgather(frame))
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # a broken connection raises either
        raise LostProcessError(str(error).splitlines()[0]) from error


@contextmanager
def _silent_output() -> Iterator[None]:
    """Drops what C++ libraries write to the process's standard output meanwhile."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
