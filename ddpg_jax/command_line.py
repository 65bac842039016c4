"""Options of a command, whose mistakes are told in one line."""

import contextlib
import io
import re
import sys
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(options: type[T], arguments: list[str] | None, program: str) -> T:
    """The options that a command line gives, as the dataclass whose fields they are.

    Raises:
        SystemExit: with status 2 and one line on standard error where they cannot be read, with 0 after `--help`.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed: Any = tyro.cli(options, args=arguments, prog=program)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        print(f"error: {_first_sentence(errors.getvalue())} (see {program} --help)", file=sys.stderr)
        raise SystemExit(2) from None
    return parsed


def _first_sentence(framed: str) -> str:
    """What tyro's message says below its title, in one line; its frame depends on the terminal's encoding."""
    lines = [re.sub(r"^[│|]|[│|]$", "", line).strip() for line in framed.splitlines()[1:]]
    parts = re.split(r"^[─╰╯+-]+$|^Got errors:$", "\n".join(lines), flags=re.MULTILINE)
    message = next((part for part in parts if part.strip()), "the command line cannot be read")
    return " ".join(message.split())
