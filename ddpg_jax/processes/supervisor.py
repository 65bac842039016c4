"""A run of several processes, seen from outside: starts those of this machine, and says what has become of them.

JAX ends a process that has lost the others from C++, with a trace that tells a user nothing. So each process that
trains is a *worker* (`worker.py`), started by one that does not use JAX: it passes signals on, and knows who has ended
and how.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from ddpg_jax.processes.devices import usable_cores
from ddpg_jax.processes.signals import heeded
from ddpg_jax.processes.team import LOST

GRACE_SECONDS = 30.0
"""After one worker has failed, the others have so long to notice, until they are killed."""

_NATIVE = re.compile(
    rb"^([IWEF]\d{4} \d\d:\d\d:\d\d|WARNING: All log messages before absl|\*\*\* |\s+@ +0x|PC: @"
    rb"|Additional GRPC error information|:UNKNOWN:Error received|RPC: /)"
)
"""What C++ libraries write to standard error on their own."""


@dataclass
class Worker:
    """A process that has been started, and what it has said."""

    process_id: int | None
    process: subprocess.Popen
    advice: list[str] = field(default_factory=list)
    """How the run can be resumed, once it can be."""
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        """Whether it has ended otherwise than well."""
        return self.process.poll() not in (None, 0)

    @property
    def has_lost_another(self) -> bool:
        """Whether it has ended because another one was gone; JAX ends a process by SIGABRT."""
        return self.process.returncode in (LOST, -signal.SIGABRT)


def supervise(
    arguments: Sequence[str], *, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> int:
    """Starts the processes of this machine, waits for them, and returns the exit status of the run.

    Args:
        arguments: the command line, which each process is given.
        coordinator: HOST:PORT of the first process; None: all processes are started here, or JAX detects the cluster.
        num_processes: the number of processes in all.
        process_id: the number of this process, counted from 0.
    """
    workers: list[Worker] = []
    with _passing_signals_on(workers):
        for place in _places(coordinator, num_processes, process_id):
            workers.append(_start(place, arguments))
        culprit = _watch(workers)
    for worker in workers:
        for thread in worker.threads:
            thread.join(timeout=1)
    if culprit is None:
        return 0
    if culprit.process.returncode > 0 and not culprit.has_lost_another:
        return int(culprit.process.returncode)  # it has said why
    print(f"error: {_what_happened(culprit, num_processes)}{_advice(workers)}", file=sys.stderr)
    return 1


def _places(coordinator: str | None, num_processes: int | None, process_id: int | None) -> list[dict[str, Any]]:
    """What each worker is told: which process it is, and what of this machine it may use."""
    if coordinator is not None or num_processes is None:  # one of many, started one by one
        return [{"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}]
    coordinator, count = f"127.0.0.1:{_free_port()}", num_processes
    return [
        {
            "coordinator": coordinator,
            "num_processes": count,
            "process_id": index,
            "device": index,
            "cores": _cores(index, count),
        }
        for index in range(count)
    ]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _cores(index: int, count: int) -> list[int]:
    """The cores of one of some processes on this machine: its share, or one, if there are too few."""
    try:
        cores = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        return []
    each = usable_cores() // count
    return cores[index * each : (index + 1) * each] if each else [cores[index % len(cores)]]


def _start(place: dict[str, Any], arguments: Sequence[str]) -> Worker:
    """Starts a worker, in a session of its own: Ctrl-C reaches it once, from here."""
    reader, writer = os.pipe()
    command = [sys.orig_argv[0], "-m", "ddpg_jax.worker", json.dumps(place | {"advice": writer}), *arguments]
    process = subprocess.Popen(
        command,
        executable=sys.executable,
        stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
        stderr=subprocess.PIPE,
        pass_fds=(writer,),
        start_new_session=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
    )
    os.close(writer)
    worker = Worker(place.get("process_id"), process)
    for target, stream in ((_pass_on, process.stderr), (worker.advice.extend, os.fdopen(reader))):
        thread = threading.Thread(target=target, args=(stream,), daemon=True)
        thread.start()
        worker.threads.append(thread)
    return worker


def _pass_on(stream: IO[bytes]) -> None:
    """Standard error of a worker, but for what C++ libraries write there."""
    native = False
    for line in stream:
        native = bool(_NATIVE.match(line)) or (native and not line.strip())
        if not native:
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()


def _watch(workers: list[Worker]) -> Worker | None:
    """Waits until all have ended; returns the one that has failed first, rather one for a reason of its own."""
    failed: list[Worker] = []
    deadline = float("inf")
    while any(worker.process.poll() is None for worker in workers):
        failed += [worker for worker in workers if worker.has_failed and worker not in failed]
        if any(not worker.has_lost_another for worker in failed):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            return _first(failed, kill=workers)
        time.sleep(0.05)
    failed += [worker for worker in workers if worker.has_failed and worker not in failed]
    return _first(failed, kill=[])


def _first(failed: list[Worker], kill: list[Worker]) -> Worker | None:
    for worker in kill:
        worker.process.kill()
    for worker in kill:
        worker.process.wait()
    return next((worker for worker in failed if not worker.has_lost_another), failed[0] if failed else None)


@contextmanager
def _passing_signals_on(workers: list[Worker]) -> Iterator[None]:
    """The signals that stop a run go to the workers, each of which knows what to do."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _what_happened(worker: Worker, num_processes: int | None) -> str:
    size = "" if num_processes is None else f" of {num_processes}"
    name = "this process" if worker.process_id is None else f"process {worker.process_id}{size}"
    if worker.has_lost_another:
        return f"{name} has lost another process of the run, which has ended or cannot be reached"
    return f"{name} was ended by {signal.Signals(-worker.process.returncode).name}"


def _advice(workers: list[Worker]) -> str:
    advice = next((line.strip() for worker in workers for line in worker.advice), "nothing has been written")
    return f"; {advice}"
