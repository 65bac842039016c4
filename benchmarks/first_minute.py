"""Where the seconds of a first run go: `python benchmarks/first_minute.py`.

Runs `python -m ddpg_jax.run --seeds 32` in a process of its own, with an empty cache of compiled programs and then with
the one that this has filled, in turns with those of other checkouts (`--against PATH`; they use this environment). The
stages are those of `summary.json`; what is left of the command is the start of the interpreter, imports, and figures.
Writes `benchmarks/results/first_minute.json`, and the table in `benchmarks/README.md`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from record import HERE, RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy

STAGES = {
    "compilation": "compile_seconds",
    "training": "train_seconds",
    "evaluation": "evaluation_seconds",
    "checkpoints": "checkpoint_seconds",
}
"""Stages of a run, by the names that `summary.json` gives to their seconds."""

REST = "start-up, figures and the rest"

CACHES = ("empty", "filled")


def summary_of_run(checkout: Path, cache: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Runs a checkout's command with this cache of compiled programs; returns its summary, and its seconds in all."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
        out = Path(folder) / "run"
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ddpg_jax.run", *flags, "--out", str(out)],
            cwd=checkout, env=environment, check=True, capture_output=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return {**json.loads((out / "summary.json").read_text()), "command_seconds": seconds}


def run_once(checkout: Path, cache: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Runs the command once; returns the seconds of its stages, and how many agents solved the task."""
    summary = summary_of_run(checkout, cache, flags)
    seconds = summary["command_seconds"]
    stages = {stage: summary[name] for stage, name in STAGES.items()}
    return {
        **stages,
        REST: seconds - sum(stages.values()),
        "whole command": seconds,
        "solved": summary["final_shortfall"]["num_solved"],
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all checkouts in turns; returns the record."""
    checkouts = {commit(path): path for path in (*options.against, HERE.parent)}
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {name: {state: [] for state in CACHES} for name in checkouts}
    before = load_average()
    for repeat in range(1, options.repeats + 1):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as cache:
                for state in CACHES:
                    runs[name][state].append(run_once(checkout, Path(cache), options.flags))
                    seconds = runs[name][state][-1]["whole command"]
                    print(f"repeat {repeat} of {options.repeats}, {name}, {state} cache: {seconds:.1f} s", flush=True)
    return {
        "machine": describe_machine(),
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load_average": [before, load_average()],
        "flags": options.flags,
        "runs": runs,
    }


def table(record: dict[str, Any]) -> str:
    """Returns the table of the medians."""
    columns = [(name, state) for name in record["runs"] for state in CACHES]
    lines = [
        f"Seconds of `python -m ddpg_jax.run {' '.join(record['flags'])}`, medians: {record_line(record)}",
        "",
        f"| stage | {' | '.join(f'{name}, {state} cache' for name, state in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for stage in (*STAGES, REST, "whole command", "solved"):
        values = [statistics.median(run[stage] for run in record["runs"][name][state]) for name, state in columns]
        digits = 0 if stage == "solved" else 1
        lines.append(f"| {stage} | {' | '.join(f'{value:.{digits}f}' for value in values)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, and writes the record and its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, nargs="*", default=[], help="folders of other checkouts")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=["--seeds", "32"], help="flags of the command")
    options = parser.parse_args()
    warn_if_busy()
    record = measure(options)
    (RESULTS / "first_minute.json").write_text(json.dumps(record, indent=2) + "\n")
    fill_readme("first-minute", table(record))
    print(table(record))


if __name__ == "__main__":
    main()
