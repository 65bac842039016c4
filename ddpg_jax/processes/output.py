"""Output whose reader may go away: `… | head`, a terminal that is closed, a disk that fills up behind `> log`."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO


class Enduring:
    """A text stream that drops what cannot be written, instead of ending a run for it; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text if anyone takes it; returns its length."""
        try:
            self._stream.write(text)
        except OSError:
            self._drop()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes one after another."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Passes on what is waiting, if anyone takes it."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Sends this and all that follows nowhere, what waits in the stream's buffer included."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def endure() -> None:
    """Makes this process's standard output and standard error enduring. For a program's first line, not for a library.

    Either is None where a shell has closed it (`>&-`).
    """
    sys.stdout, sys.stderr = (
        open(os.devnull, "w") if stream is None else Enduring(stream)  # noqa: SIM115  # type: ignore[assignment]
        for stream in (sys.stdout, sys.stderr)
    )
