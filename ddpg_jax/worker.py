"""One of several processes of a run; `processes/supervisor.py` starts it with its assignment and the command line."""

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import NoReturn

from ddpg_jax.processes.assignment import Assignment
from ddpg_jax.processes.output import endure


def main() -> NoReturn:
    """Trains the agents of this process."""
    assignment = Assignment.from_json(sys.argv.pop(1))
    if assignment.cores:
        os.sched_setaffinity(0, assignment.cores)  # before any library counts them
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        status = _train(assignment)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        status = 1
        with suppress(OSError):  # nobody may be listening any more
            traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if status == 0:
        import jax

        jax.distributed.shutdown()  # waits for the other processes
    elif not assignment.process_id:
        time.sleep(0.5)  # JAX ends the others when the first process is gone, and they may still have to print an error
    os._exit(status)  # without waiting for processes that may be gone


def _train(assignment: Assignment) -> int:
    from ddpg_jax import run
    from ddpg_jax.processes import team

    def join() -> team.Team:
        which = (assignment.coordinator, assignment.num_processes, assignment.process_id)
        return team.join(*which, device=assignment.device)

    def advise(advice: str) -> None:
        os.write(assignment.advice, f"{advice}\n".encode())

    return run.work(run.parse(sys.argv[1:]), join, advise)


def _follow_parent() -> None:
    """Stops this process, as SIGTERM does, when the process that has started it is gone."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    endure()
    main()
