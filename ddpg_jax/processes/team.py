"""Processes that carry out one run together: what they tell each other between two calls of compiled programs.

Every process trains agents of its own, so there is little to say: when to stop and to save, what has been measured, and
in the end the statistics' rows. All of it goes through `Team.gather`, which JAX's own distributed runtime carries.
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
"""Without a sign of life for so long, JAX takes a process for dead. Broken connections are seen at once."""

_FRAME_BYTES = (2**12, 2**20)
"""Sizes of the messages that are exchanged: of the first, and of those behind it. Each is one compiled program."""


LOST = 70
"""Exit status of a process that has lost another one of its run."""


class LostProcessError(Exception):
    """Another process of the run is gone."""


class ToldError(OSError):
    """What has failed in some process, as the others see it: the first one reports it for all."""


def _alone(data: bytes) -> list[bytes]:
    return [data]


@dataclass(frozen=True)
class Team:
    """The processes of a run; without arguments, the only one. All must call its methods in the same order."""

    index: int = 0
    """Which one this is, from 0; the first prints, and writes what is written once."""
    size: int = 1
    exchange: Callable[[bytes], list[bytes]] = _alone
    """Gives every process the bytes of all, in their order."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints."""
        return self.index == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order.

        Raises:
            LostProcessError: if one of them is gone.
        """
        if self.size == 1:
            return [value]
        return [pickle.loads(data) for data in self.exchange(pickle.dumps(value))]

    def to_first(self, value: T) -> list[T]:
        """As `gather` in the first process, and nothing in the others."""
        if self.size == 1:
            return [value]
        everything = self.exchange(pickle.dumps(value))
        return [pickle.loads(data) for data in everything] if self.is_first else []

    def first(self, action: Callable[[], T]) -> T:
        """What `action` returns in the first process, the only one that carries it out.

        Raises:
            ValueError: in every process, if the action has raised it.
            OSError: likewise; in the others it is a `ToldError`.
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
        """What `action` returns in each process; what it raises in one of them is raised in all, as by `first`."""
        if self.size == 1:
            return [action()]
        result, error = None, None
        try:
            result = action()
        except (ValueError, OSError) as raised:
            error = raised
        return self._agreed(self.gather((result, error)))

    def share(self, agents: range) -> range:
        """The agents that this process trains of some: neighbours, and as many as the others or fewer, even none."""
        each = -(-len(agents) // self.size)
        return agents[self.index * each : (self.index + 1) * each]

    def _agreed(self, outcomes: Sequence[tuple[Any, Exception | None]]) -> list[Any]:
        for _, error in outcomes:
            if isinstance(error, OSError) and not self.is_first:
                raise ToldError(str(error))
            if error is not None:
                raise error
        return [result for result, _ in outcomes]


ALONE = Team()
"""The only process of its run."""


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
        coordinator: "host:port" of the first process; None: what JAX finds in the environment of a cluster's scheduler.
        num_processes: how many there are, likewise.
        process_id: which one this is, from 0, likewise.
        device: the accelerator of this machine that it takes; None: what JAX gives it.
        seconds: to wait for the others.

    Raises:
        ValueError: if there is nothing to be found, or the others do not come.
    """
    import jax

    if is_local(coordinator):  # no proxy is asked there (`supervisor._environment`), so JAX need not warn of one
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
    with _silent_output():  # in which the collectives' library announces itself
        team.gather(b"\0" * _FRAME_BYTES[0])  # compiles both messages
    return team


def processes_on_this_host(team: Team) -> int:
    """How many of them share this machine's memory."""
    names = team.gather((socket.gethostname(), _boot_id()))
    return names.count(names[team.index])


def _boot_id() -> str:
    """What tells machines of one name apart."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _exchange(data: bytes) -> list[bytes]:
    """The bytes of all processes: their number and the first of them in one message, the rest in longer ones."""
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
    """The bytes in pieces of one size, the last filled up."""
    for start in range(0, len(data), size):
        frame = np.zeros(size, np.uint8)
        piece = data[start : start + size]
        frame[: len(piece)] = piece
        yield frame


def _allgather(frame: np.ndarray) -> np.ndarray:
    """The frames of all processes, [P, size]."""
    import jax
    from jax.experimental import multihost_utils

    try:
        return np.asarray(multihost_utils.process_allgather(frame))
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # a broken connection is either, by when it is seen
        raise LostProcessError(str(error).splitlines()[0]) from error


@contextmanager
def _silent_output() -> Iterator[None]:
    """What libraries write to the process's standard output from C++ goes nowhere."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
