"""What all benchmarks share: options, the circumstances of a record, and tables in a page of the documentation."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DOCS = ROOT / "docs"

BUSY_LOAD = 0.5
"""Load average above which a warning is printed."""


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser of options whose help begins with a script's docstring."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def describe_machine() -> dict[str, Any]:
    """Returns the machine on which the benchmark runs."""
    cpu, memory = platform.processor() or platform.machine(), None
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system, python = f"{platform.system()} {platform.release()}", platform.python_version()
    return {"cpu": cpu, "cores": cores, "memory_gib": memory, "system": system, "python": python}


def commit(checkout: Path = ROOT) -> str:
    """Returns the commit of a checkout, and whether its package has uncommitted changes."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--", "ddpg_jax")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load_average() -> float:
    """Returns the average number of processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def begin() -> dict[str, Any]:
    """Returns the circumstances of a measurement that begins now; warns if other work would distort it."""
    load = load_average()
    if load > BUSY_LOAD:
        print(f"warning: the load average is {load}: other work on this machine distorts the figures", file=sys.stderr)
    date = time.strftime("%Y-%m-%d")
    return {"machine": describe_machine(), "commit": commit(), "date": date, "load_average": [load]}


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes a record, with the load average at its end."""
    loads = [record["load_average"][0], load_average()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**record, "load_average": loads}, indent=1) + "\n")


def circumstances(record: dict[str, Any]) -> str:
    """Returns the circumstances of a record in a sentence."""
    machine = record["machine"]
    loads = " and ".join(str(load) for load in record["load_average"])
    return (
        f"{machine['cpu']}, {machine['cores']} cores; Python {machine['python']}; commit {record['commit']}; "
        f"{record['date']}; load average before and after: {loads}."
    )


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table in Markdown."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def fill(page: str, name: str, text: str) -> None:
    """Prints a table, and writes it between the marks of that name in a page of the documentation."""
    print(text)
    begin_mark, end_mark = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = (DOCS / page).read_text().partition(begin_mark)
    _, found, after = rest.partition(end_mark)
    if found:
        (DOCS / page).write_text(f"{before}{begin_mark}\n{text.strip()}\n{end_mark}{after}")
