"""The signals that stop a run: which of them end it at once, and which wait until nothing is lost."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""SIGHUP comes from a closed terminal, the last three from schedulers that announce an end (SLURM, Grid Engine)."""


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
        self.number: int | None = None
        """The first signal that was received after `defer`."""
        self.advice: Callable[[], str | None] = lambda: "nothing has been written"
        """Called before a command is ended at once; returns the last words on standard error, or None."""
        self._ends_process, self._in_main_thread = ends_process, threading.current_thread() is threading.main_thread()
        self._announce: Callable[[str], object] | None = None
        self._before: dict[int, Any] = {}
        self._writer: int | None = None

    @property
    def requested(self) -> bool:
        """Whether the run should stop."""
        return self.number is not None

    def defer(self, announce: Callable[[str], object]) -> None:
        """Lets the first signal from now on only be noted, and announced in a line for the user."""
        self._announce = announce
        if self._in_main_thread and not self._ends_process:
            self._handle(self._receive)

    def __enter__(self) -> "StopSignals":
        if self._in_main_thread and self._ends_process:
            reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._handle(lambda number, frame: None)  # without a handler, Python would not write to the pipe
            threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._writer is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._writer)  # ends the thread
            self._writer = None

    def _handle(self, handler: Callable[[int, FrameType | None], None]) -> None:
        """Sets the handler of all signals that stop a run."""
        for number in (signal.Signals[name] for name in _SIGNALS):
            before = signal.getsignal(number)
            if before is signal.SIG_DFL or (number == signal.SIGINT and before is not signal.SIG_IGN):
                self._before.setdefault(number, signal.signal(number, handler))

    def _listen(self, reader: int) -> None:
        """Handles the signals of a command, in a thread. The pipe also has signals that the program itself handles."""
        while data := os.read(reader, 1):
            if data[0] in self._before:
                self._receive(data[0])
        os.close(reader)

    def _receive(self, number: int, frame: FrameType | None = None) -> None:
        if self._announce is not None and self.number is None:
            self.number, name = number, signal.Signals(number).name
            again = "again " if number == signal.SIGINT else ""
            with suppress(Exception):  # it may have come within another `print`
                self._announce(f"{name}: stopping after the current chunk; Ctrl-C {again}ends the run at once")
        elif self._ends_process and (self._announce is None or number == signal.SIGINT):
            self._end(number)
        elif number == signal.SIGINT:
            before = self._before.pop(number)
            signal.signal(number, before)
            (before if callable(before) else signal.default_int_handler)(number, frame)

    def _end(self, number: int) -> None:
        """Ends the process with the status that a shell expects, whatever its main thread is doing."""
        with suppress(Exception):
            sys.stdout.flush()
            if os.isatty(1):
                os.write(1, b"\x1b[?25h\n")  # shows the cursor, which a progress bar hides
        try:
            if (advice := self.advice()) is not None:
                os.write(2, f"ended by {signal.Signals(number).name}; {advice}\n".encode())
        finally:
            os._exit(128 + number)
