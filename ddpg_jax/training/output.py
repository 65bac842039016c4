"""Output whose reader may go away: `… | head`, a terminal that is closed, a log file on a full disk."""

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO


def ignore_broken_pipe() -> None:
    """Lets this process continue when its standard output or standard error can no longer be written.

    Such output is dropped; "?" replaces characters that cannot be encoded. For the first line of a program only.
    """
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)


def _guarded(stream: TextIO | None) -> TextIO:
    """Returns a stream that writes to the same file; the stream itself if it has no descriptor."""
    if stream is None:  # a shell has closed it (`>&-`)
        return open(os.devnull, "w")
    try:
        raw = io.BufferedWriter(_Descriptor(stream.fileno(), "w", closefd=False))
    except (OSError, AttributeError):
        return stream
    with suppress(OSError):
        stream.flush()
    by_line = bool(stream.line_buffering or getattr(stream, "write_through", False))  # the latter: PYTHONUNBUFFERED
    return io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=by_line)


class _Descriptor(io.FileIO):
    """Writes to a file descriptor until that fails; from then on, everything is dropped."""

    def write(self, data: Any) -> int:
        try:
            os.set_blocking(self.fileno(), True)  # another program may have changed that of a shared terminal
            return super().write(data)
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            return memoryview(data).nbytes
