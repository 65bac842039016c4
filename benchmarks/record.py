"""Describes the circumstances of a benchmark (machine, commit, load), and writes its tables into the README."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE / "README.md"

BUSY_LOAD = 0.5
"""Load average above which a warning is printed."""


def describe_machine() -> dict[str, Any]:
    """Returns the machine on which the benchmark runs."""
    cpu = platform.processor() or platform.machine()
    memory = None
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (OSError, ValueError):  # another operating system
        pass
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def commit(checkout: Path = HERE.parent) -> str:
    """Returns the commit that is measured, and whether the package has uncommitted changes."""
    try:
        head = _git(checkout, "rev-parse", "--short=12", "HEAD")
        return head + (" with changes" if _git(checkout, "status", "--porcelain", "--", "ddpg_jax") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def load_average() -> float | None:
    """Returns the average number of processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def warn_if_busy() -> None:
    """Prints a warning if other work on this machine would distort the figures."""
    load = load_average()
    if load is not None and load > BUSY_LOAD:
        print(f"warning: the load average is {load}: other work on this machine distorts the figures", file=sys.stderr)


def fill_readme(name: str, text: str) -> None:
    """Writes the text between the marks of that name in `benchmarks/README.md`."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = README.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if found:
        README.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def record_line(record: dict[str, Any]) -> str:
    """Returns the circumstances of a record as a line of text."""
    machine = record["machine"]
    loads = ", ".join(str(load) for load in record["load_average"])
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; Python {machine['python']}; "
        f"commit {record['commit']}; {record['date']}; load average before and after: {loads}."
    )
