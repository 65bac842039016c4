"""Files that other processes see whole or not at all, whatever ends the process that writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under another name in its folder, which is made if needed, and renames it.

    A kill at any moment leaves the old file or the new one.

    Raises:
        OSError: if the file cannot be written; the message names it.
    """
    draft = path.with_name(f".{path.name}.part")
    with error_that_names(str(path)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            os.replace(draft, path)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8 by `write_whole`."""
    write_whole(path, text.encode())


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file and waits until it has reached the disk, so that it also survives a power cut.

    Raises:
        OSError: if the file cannot be written.
    """
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def error_that_names(what: str) -> Iterator[None]:
    """Gives an `OSError` that is raised inside the message "WHAT could not be written: REASON"."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{what} could not be written: {error.strerror or error}") from error
