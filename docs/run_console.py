"""Fills the console blocks of a page: `python docs/run_console.py docs/reliability.md`.

It runs each line `$ command` with bash, in order, all of them in the same folder, which is empty at first. The output
replaces the lines below the command, followed by `[status N]` if the status is not 0. `tests/test_reliability_page.py`
compares the blocks with new output later.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[tuple[str, list[str], int]]:
    """Returns the commands of a block, each with the lines that it prints and its status."""
    found: list[tuple[str, list[str], int]] = []
    for line in block.splitlines():
        status = re.fullmatch(r"\[status (\d+)\]", line)
        if line.startswith("$ "):
            found.append((line[2:], [], 0))
        elif status:
            found[-1] = (*found[-1][:2], int(status[1]))
        else:
            found[-1][1].append(line)
    return found


def run(command: str, folder: Path) -> str:
    """Runs a command; returns it with its output, in the form of a block."""
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": bin_first, "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "100"}
    process = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    status = f"[status {process.returncode}]\n" if process.returncode else ""
    return f"$ {command}\n{process.stdout}{status}"


def main() -> None:
    """Fills the blocks of the page that the command line names."""
    page = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:

        def fill(match: re.Match[str]) -> str:
            filled = "".join(run(command, Path(folder)) for command, _, _ in commands(match[1]))
            return f"```console\n{filled}```"

        text = BLOCK.sub(fill, page.read_text())
    page.write_text(text)


if __name__ == "__main__":
    main()
