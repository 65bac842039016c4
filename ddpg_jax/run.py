"""`python -m ddpg_jax.run`: trains many agents and leaves a run folder."""

import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

_STARTED = time.perf_counter()

if __name__ == "__main__":  # until `main` listens for it, Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ddpg_jax.command_line import refuse  # noqa: E402  (the clock starts first)
from ddpg_jax.processes.output import endure  # noqa: E402
from ddpg_jax.processes.signals import Interruption  # noqa: E402
from ddpg_jax.runs.options import PROGRAM, Options, from_command_line  # noqa: E402


def parse(arguments: Sequence[str]) -> Options:
    """Returns the options of a command line; on bad input prints a line and ends the process with status 2."""
    try:
        return from_command_line(arguments)
    except ValueError as error:
        refuse(str(error), PROGRAM)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    if options.list_environments:
        return list_environments()
    if options.distributed:
        from ddpg_jax.processes import supervisor

        which = {name: getattr(options, name) for name in ("coordinator", "num_processes", "process_id")}
        return supervisor.supervise(arguments, **which)
    return work(options)


def list_environments() -> int:
    """Prints a line for each environment that can be named here."""
    from ddpg_jax.environments import registry

    for line in registry.listed():
        print(line, flush=True)
    return 0


def work(options: Options, join: Callable[[], Any] | None = None, advise: Callable[[str], None] | None = None) -> int:
    """Runs what the options say, as the only process or as one of several; returns the exit status.

    Args:
        options: of the run.
        join: returns the processes of the run (`team.Team`); None: this is the only process.
        advise: is told how the run can be resumed, once it can be.
    """
    with Interruption() as interruption:
        from ddpg_jax.processes import devices, team  # JAX is imported from here on
        from ddpg_jax.runs import finish, resuming, start

        processes = team.ALONE
        try:
            count = options.num_processes or 1
            devices.prepare(devices.devices_each(options.devices, options.earlier_devices, count))
            processes = processes if join is None else join()
            devices.require_platform()
            # A cache on a full or read-only disk, or an entry that a kill has cut short, costs time, no more.
            warnings.filterwarnings("ignore", message="Error .* persistent compilation cache entry")
            session = start.open_session(options, interruption, _STARTED, processes)
        except ValueError as error:
            if processes.is_first:
                refuse(str(error), PROGRAM)
            return 2
        except team.LostProcessError:
            return team.LOST
        if session is None:
            return 0
        if advise is not None:
            advise(resuming.how_to_resume(options, session.folder))
        return finish.run(session)


if __name__ == "__main__":
    endure()
    sys.exit(main())
