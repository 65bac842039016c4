"""The signals that stop a run: what ends it at once, and what waits until nothing is lost."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

WARNINGS = ("SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Signals by which schedulers announce an end: SLURM's `--signal`, Grid Engine's `-notify`, a limit of CPU time."""


def heeded() -> tuple[int, ...]:
    """Returns the signals that stop a run.

    SIGHUP, which a terminal sends when it is closed, does not stop a run under `nohup`. The signals of schedulers stop
    it unless the program in which it runs handles them itself.
    """
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    warnings = (getattr(signal, name) for name in WARNINGS if hasattr(signal, name))
    unhandled = (number for number in warnings if signal.getsignal(number) is signal.SIG_DFL)
    return (signal.SIGINT, signal.SIGTERM, *hangup, *unhandled)


class Interruption:
    """Listens for the signals while it is entered.

    Python runs its own signal handlers only between two of its instructions, and compiled programs keep it waiting for
    seconds. So a thread listens instead: it can tell the user what happens, and end the process, at any moment.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal that was received."""
        self.advice: Callable[[], str | None] = lambda: "nothing has been written"
        """Called before the process is ended at once; returns the last words on standard error, or None."""
        self._announce: Callable[[str], None] | None = None
        self._ends: tuple[int, int] | None = None
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1

    def defer(self, announce: Callable[[str], None]) -> None:
        """From now on the first signal is only noted in `number`; a SIGINT after it still ends the process at once.

        Another signal that is repeated does not: schedulers send SIGTERM twice.

        Args:
            announce: told what is going to happen.
        """
        self._announce = announce

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # handlers cannot be set elsewhere
            reader, writer = self._ends = os.pipe()
            os.set_blocking(writer, False)
            self._wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, _ignore) for number in heeded()}
            threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._ends is not None:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._ends[1])  # ends the thread
            self._ends = None

    def _listen(self, reader: int) -> None:
        while data := os.read(reader, 1):
            self._received(data[0])
        os.close(reader)

    def _received(self, number: int) -> None:
        first = self.number is None
        self.number = self.number or number
        if self._announce is None or (not first and number == signal.SIGINT):
            self._end(number)
        elif first:
            self._announce(f"{_name(number)}: stopping after the current chunk; Ctrl-C (again) ends the run at once")

    def _end(self, number: int) -> None:
        """Ends the process with the status that a shell expects, whatever its main thread is doing."""
        try:
            sys.stdout.flush()
            if sys.stdout.isatty():
                sys.__stdout__.write("\x1b[?25h\n")  # type: ignore[union-attr]  # the cursor, which a progress bar hides
                sys.__stdout__.flush()  # type: ignore[union-attr]
            advice = self.advice()
            if advice is not None:
                os.write(2, f"ended by {_name(number)}; {advice}\n".encode())
        finally:
            os._exit(128 + number)


def _name(number: int) -> str:
    return signal.Signals(number).name


def _ignore(number: int, frame: FrameType | None) -> None:
    """The listening thread does the work; without a handler there would be nothing to listen for."""
