"""One of several processes of a run: what `job.py` starts as `python -m ddpg_jax.worker PLACE ARGUMENTS...`."""

import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from ddpg_jax.processes.output import endure


def main() -> NoReturn:
    """Carries out this process's part of the run."""
    place: dict[str, Any] = json.loads(sys.argv.pop(1))
    if place.get("cores"):
        os.sched_setaffinity(0, place["cores"])  # before any library counts them
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        status = _work(place)
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

        jax.distributed.shutdown()  # waits for the others
    elif not place.get("process_id"):
        time.sleep(0.5)  # without the first process JAX ends the others, which may be about to say something
    os._exit(status)  # without waiting for processes that may be gone


def _work(place: dict[str, Any]) -> int:
    from ddpg_jax import run
    from ddpg_jax.processes import team

    def join() -> team.Team:
        which = (place["coordinator"], place["num_processes"], place["process_id"])
        return team.join(*which, device=place.get("device"))

    def advise(advice: str) -> None:
        os.write(place["advice"], f"{advice}\n".encode())

    return run.work(run.parse(sys.argv[1:]), join, advise)


def _follow_parent() -> None:
    """Stops, as if asked to, when the process that has started this one is gone."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    endure()
    main()
