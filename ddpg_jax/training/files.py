"""Files that other processes see complete or not at all, whatever ends the process that writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Opens a draft in the file's folder, which is made if needed, and renames it at the end of the `with` statement.

    A kill at any moment leaves the old file or the new one, and so does a power cut if `durable`; an exception removes
    the draft, `.NAME.part`. Raises an OSError that names the file if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.part")
    with error_that_names(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file by `whole_file`."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8 by `whole_file`."""
    write_whole(path, text.encode())


@contextmanager
def error_that_names(path: Path, action: str = "written") -> Iterator[None]:
    """Gives an `OSError` that is raised inside the message "PATH could not be ACTION: REASON"."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} could not be {action}: {error.strerror or error}") from error
