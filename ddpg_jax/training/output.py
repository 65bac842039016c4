"""Output whose reader may go away: `… | head`, a terminal that is closed, a log file on a full disk."""

import codecs
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

_SIMILAR = str.maketrans({"−": "-", "–": "-", "…": "...", "━": "-", "╸": "-", "╺": "-", "×": "x", "·": "*"})


def in_ascii(text: str) -> str:
    """Returns a text with similar ASCII characters in place of others, and with "?" where there is none."""
    return text.translate(_SIMILAR).encode("ascii", "replace").decode()


def ignore_broken_pipe() -> None:
    """Lets this process continue when its standard output or standard error can no longer be written.

    Output that cannot be written is dropped. Characters that the stream's encoding lacks are replaced by `in_ascii`.
    Call it in the first line of a program, not in a library.
    """
    codecs.register_error("similar_ascii", _similar_ascii)
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)


def _similar_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return in_ascii(error.object[error.start : error.end]), error.end


def _guarded(stream: TextIO | None) -> TextIO:
    """Returns a stream that writes to the same file; the stream itself if it has no descriptor."""
    if stream is None:  # a shell has closed it (`>&-`)
        return open(os.devnull, "w")
    try:
        raw = _Descriptor(stream.fileno(), "w", closefd=False)
    except (OSError, AttributeError):
        return stream
    with suppress(OSError):
        stream.flush()
    unbuffered = getattr(stream, "write_through", False)  # by PYTHONUNBUFFERED
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        stream.encoding,
        "similar_ascii",
        line_buffering=bool(stream.line_buffering),
        write_through=unbuffered,
    )


class _Descriptor(io.FileIO):
    """Writes to a file descriptor until that fails; from then on, everything is dropped."""

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # another program has made the terminal non-blocking
                select.select([], [self.fileno()], [])
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes
        return written
