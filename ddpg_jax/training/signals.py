"""The signals that stop a run: which of them end it at once, and which wait until nothing is lost."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

_WARNINGS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""A closed terminal, and how schedulers announce an end: SLURM's `--signal`, Grid Engine's `-notify`, limits."""


class StopSignals:
    """Listens for the signals that stop a run, until the end of the `with` statement.

    Before `defer` they end the program as usual. After it, the first signal is only noted, and a second Ctrl-C ends the
    run at once; another signal that is repeated does not, because schedulers send SIGTERM twice.

    In a command (`ends_process`), a thread listens, and can end the process at any moment: Python runs its own signal
    handlers only between two of its instructions, and compiled programs keep it waiting for seconds. In a library, the
    main thread listens between two instructions, and a second Ctrl-C raises KeyboardInterrupt. Signals that the
    surrounding program handles or ignores, and all signals in other threads than the main thread, are left alone.
    """

    def __init__(self, ends_process: bool) -> None:
        """Args:
        ends_process: whether the process belongs to this run.
        """
        self.number: int | None = None
        """The first signal that was received after `defer`."""
        self.advice: Callable[[], str | None] = lambda: "nothing has been written"
        """Called before a command is ended at once; returns the last words on standard error, or None."""
        self._ends_process = ends_process
        self._announce: Callable[[str], object] | None = None
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1

    @property
    def requested(self) -> bool:
        """Whether the run should stop."""
        return self.number is not None

    def defer(self, announce: Callable[[str], object]) -> None:
        """Lets the first signal from now on only be noted.

        Args:
            announce: called with a line for the user when that happens.
        """
        self._announce = announce
        if not self._ends_process and _in_main_thread():
            self._handle(self._note)

    def __enter__(self) -> "StopSignals":
        if self._ends_process and _in_main_thread():
            reader, writer = self._pipe = os.pipe()
            os.set_blocking(writer, False)
            self._wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            self._handle(_do_nothing)
            threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._pipe[1])  # ends the thread
            self._pipe = None

    def _handle(self, handler: Callable[[int, FrameType | None], None]) -> None:
        """Sets the handler of all signals that stop a run."""
        for name in ("SIGINT", "SIGTERM", *_WARNINGS):
            number = signal.Signals[name]
            before = signal.getsignal(number)
            if before is signal.SIG_DFL or (number == signal.SIGINT and before is not signal.SIG_IGN):
                self._before.setdefault(number, signal.signal(number, handler))

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal in a library."""
        if self.number is None:
            self._stop(number)
        elif number == signal.SIGINT:
            before = self._before.pop(number)
            signal.signal(number, before)
            (before if callable(before) else signal.default_int_handler)(number, frame)

    def _listen(self, reader: int) -> None:
        """Handles the signals of a command, in a thread. The pipe also has signals that the program itself handles."""
        while data := os.read(reader, 1):
            number = data[0]
            if number in self._before and (self._announce is None or (self.requested and number == signal.SIGINT)):
                self._end(number)
            elif number in self._before and not self.requested:
                self._stop(number)
        os.close(reader)

    def _stop(self, number: int) -> None:
        """Notes a signal and announces it, if that can be printed: it may have come within another `print`."""
        self.number = number
        again = "again " if number == signal.SIGINT else ""
        with suppress(Exception):
            assert self._announce is not None
            self._announce(f"{_name(number)}: stopping after the current chunk; Ctrl-C {again}ends the run at once")

    def _end(self, number: int) -> None:
        """Ends the process with the status that a shell expects, whatever its main thread is doing."""
        with suppress(Exception):
            sys.stdout.flush()
            if sys.stdout.isatty() and sys.__stdout__ is not None:
                sys.__stdout__.write("\x1b[?25h\n")  # the cursor, which a progress bar hides
                sys.__stdout__.flush()
        try:
            advice = self.advice()
            if advice is not None:
                os.write(2, f"ended by {_name(number)}; {advice}\n".encode())
        finally:
            os._exit(128 + number)


def _in_main_thread() -> bool:
    """Returns whether Python allows to set handlers here."""
    return threading.current_thread() is threading.main_thread()


def _name(number: int) -> str:
    return signal.Signals(number).name


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """The listening thread handles the signal; without a handler it would not be woken."""
