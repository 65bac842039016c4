"""Starts the processes of a run on this machine, and says how they ended.

JAX ends a process that has lost the others from C++, with a trace that tells a user nothing. So each process that
trains (`ddpg_jax/worker.py`) is the child of one that does not use JAX. The parent passes signals on, and knows which
child has ended, and how.
"""

import dataclasses
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
from typing import IO

from ddpg_jax.processes.assignment import Assignment, is_local
from ddpg_jax.processes.devices import usable_cores
from ddpg_jax.processes.signals import heeded
from ddpg_jax.processes.team import LOST

GRACE_SECONDS = 30.0
"""Seconds that the other children have to notice that one has failed, before they are killed."""

_NATIVE = re.compile(
    rb"^([IWEF]\d{4} \d\d:\d\d:\d\d|WARNING: All log messages before absl|\*\*\* |\s+@ +0x|PC: @"
    rb"|Additional GRPC error information|:UNKNOWN:Error received|RPC: /)"
)
"""Lines that C++ libraries write to standard error on their own."""


@dataclass
class Child:
    """A process that has been started, and what it has said."""

    process_id: int | None
    process: subprocess.Popen
    advice: list[str] = field(default_factory=list)
    """How the run can be resumed, once it can be."""
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        """Whether it has ended with an error."""
        return self.process.poll() not in (None, 0)

    @property
    def has_lost_another(self) -> bool:
        """Whether it has ended because another process was gone; JAX ends a process by SIGABRT."""
        return self.process.returncode in (LOST, -signal.SIGABRT)


def supervise(
    arguments: Sequence[str], *, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> int:
    """Starts the processes of this machine, waits for them, and returns the exit status of the run.

    Args:
        arguments: the command line, which each process is given.
        coordinator: HOST:PORT of the first process; None: all processes are started here, or JAX detects the cluster.
        num_processes: the number of processes in all.
        process_id: the number of this process, from 0.
    """
    children: list[Child] = []
    with _passing_signals_on(children):
        for assignment in _assignments(coordinator, num_processes, process_id):
            children.append(_start(assignment, arguments))
        culprit = _watch(children)
    for child in children:
        for thread in child.threads:
            thread.join(timeout=1)
    if culprit is None:
        return 0
    if culprit.process.returncode > 0 and not culprit.has_lost_another:
        return int(culprit.process.returncode)  # it has printed the reason
    print(f"error: {_what_happened(culprit, num_processes)}{_advice(children)}", file=sys.stderr)
    return 1


def _assignments(coordinator: str | None, num_processes: int | None, process_id: int | None) -> list[Assignment]:
    """Returns the assignments of the processes that are started here."""
    if coordinator is not None or num_processes is None:  # one of many, which are started one by one
        return [Assignment(coordinator, num_processes, process_id)]
    coordinator = f"127.0.0.1:{_free_port()}"
    return [
        Assignment(coordinator, num_processes, index, device=index, cores=_cores(index, num_processes))
        for index in range(num_processes)
    ]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _cores(index: int, count: int) -> tuple[int, ...]:
    """Returns the cores of one of some processes on this machine: its share, or one core if there are too few."""
    try:
        cores = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        return ()
    each = usable_cores() // count
    return tuple(cores[index * each : (index + 1) * each]) if each else (cores[index % len(cores)],)


def _start(assignment: Assignment, arguments: Sequence[str]) -> Child:
    """Starts a child in a session of its own, so that Ctrl-C reaches it only once, from here."""
    reader, writer = os.pipe()
    word = dataclasses.replace(assignment, advice=writer).to_json()
    process = subprocess.Popen(
        [sys.orig_argv[0], "-m", "ddpg_jax.worker", word, *arguments],
        executable=sys.executable,
        stdin=subprocess.PIPE,  # its end tells the child that this process is gone
        stderr=subprocess.PIPE,
        pass_fds=(writer,),
        start_new_session=True,
        env=_variables(assignment.coordinator),
    )
    os.close(writer)
    child = Child(assignment.process_id, process)
    for target, stream in ((_relay, process.stderr), (child.advice.extend, os.fdopen(reader))):
        thread = threading.Thread(target=target, args=(stream,), daemon=True)
        thread.start()
        child.threads.append(thread)
    return child


def _variables(coordinator: str | None) -> dict[str, str]:
    """Returns the environment of a child, in which no proxy stands between processes of one machine."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    if is_local(coordinator):
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            environment[name] = ",".join(filter(None, [environment.get(name), "127.0.0.1", "localhost"]))
    return environment


def _relay(stream: IO[bytes]) -> None:
    """Prints the standard error of a child, except what C++ libraries write there."""
    native = False
    for line in stream:
        native = bool(_NATIVE.match(line)) or (native and not line.strip())
        if not native:
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()


def _watch(children: list[Child]) -> Child | None:
    """Waits until all have ended; returns the child that failed first, preferably for a reason of its own."""
    failed: list[Child] = []
    deadline = float("inf")
    while any(child.process.poll() is None for child in children):
        failed += [child for child in children if child.has_failed and child not in failed]
        if any(not child.has_lost_another for child in failed):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            return _first(failed, kill=children)
        time.sleep(0.05)
    failed += [child for child in children if child.has_failed and child not in failed]
    return _first(failed, kill=[])


def _first(failed: list[Child], kill: list[Child]) -> Child | None:
    for child in kill:
        child.process.kill()
    for child in kill:
        child.process.wait()
    return next((child for child in failed if not child.has_lost_another), failed[0] if failed else None)


@contextmanager
def _passing_signals_on(children: list[Child]) -> Iterator[None]:
    """Passes the signals that stop a run to the children, which know what to do."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _what_happened(child: Child, num_processes: int | None) -> str:
    size = "" if num_processes is None else f" of {num_processes}"
    name = "this process" if child.process_id is None else f"process {child.process_id}{size}"
    if child.has_lost_another:
        return f"{name} has lost another process of the run, which has ended or cannot be reached"
    return f"{name} was ended by {signal.Signals(-child.process.returncode).name}"


def _advice(children: list[Child]) -> str:
    advice = next((line.strip() for child in children for line in child.advice), "nothing has been written")
    return f"; {advice}"
