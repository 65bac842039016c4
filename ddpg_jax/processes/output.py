"""Output whose reader may go away: `… | head`, a terminal that is closed, a log on a disk that is full."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO


class Enduring:
    """A text stream that drops what cannot be written, instead of ending a run. All else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text if it can be written, with ASCII in place of what cannot be encoded; returns its length."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(in_ascii(text))
        except OSError:
            self._drop()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes one line after another."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Passes on what is in the buffer, if it can be written."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Sends this and all further output nowhere, including what is in the stream's buffer."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def in_ascii(text: str) -> str:
    """Returns a text with similar ASCII characters in place of others, as far as there are any."""
    table = str.maketrans({"−": "-", "–": "-", "…": "...", "━": "-", "╸": "-", "╺": "-", "×": "x", "·": "*"})
    return text.translate(table).encode("ascii", "replace").decode()


def endure() -> None:
    """Makes this process's standard output and standard error endure. For a program's first line, not for a library.

    Either stream is None where a shell has closed it (`>&-`).
    """
    sys.stdout, sys.stderr = (
        open(os.devnull, "w") if stream is None else Enduring(stream)  # noqa: SIM115  # type: ignore[assignment]
        for stream in (sys.stdout, sys.stderr)
    )
