"""Where the seconds of a first run go: `python benchmarks/first_minute.py`.

Runs `python -m ddpg_jax.run --seeds 32` in a process of its own, with an empty cache of compiled programs and then with
the one that this has filled. The stages are those of `summary.json`; the rest of the command is the start of the
interpreter, imports and figures. Writes `results/first_minute.json`, and the table in `docs/performance.md`.
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
from pathlib import Path
from typing import Any

from record import RESULTS, ROOT, begin, circumstances, fill, make_parser, markdown, write

STAGES = {"compilation": "compile_seconds", "training": "train_seconds", "evaluation": "evaluation_seconds",
          "checkpoints": "checkpoint_seconds"}  # fmt: skip
"""Stages of a run, by the names that `summary.json` gives to their seconds."""

REST, WHOLE = "start-up, figures and the rest", "whole command"
CACHES = ("empty", "filled")


def run_once(cache: str, flags: Sequence[str]) -> dict[str, float]:
    """Runs the command with this cache of compiled programs; returns the seconds of its stages."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": cache}
        command = [sys.executable, "-m", "ddpg_jax.run", *flags, "--out", f"{folder}/run"]
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        summary = json.loads(Path(folder, "run/summary.json").read_text())
    stages = {stage: summary[name] for stage, name in STAGES.items()}
    return stages | {REST: seconds - sum(stages.values()), WHOLE: seconds}


def table(record: dict[str, Any]) -> str:
    """Returns the medians as Markdown."""
    head = f"Seconds of `python -m ddpg_jax.run {' '.join(record['flags'])}`, medians. {circumstances(record)}"
    rows = [[stage, *(f"{statistics.median(run[stage] for run in record['runs'][state]):.1f}" for state in CACHES)]
            for stage in (*STAGES, REST, WHOLE)]  # fmt: skip
    return f"{head}\n\n{markdown(('stage', 'empty cache', 'filled cache'), rows)}"


def main() -> None:
    """Measures, and writes the record and its table."""
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs with each cache (default: 3)")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=["--seeds", "32"], help="flags of the command")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of the record")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {state: [] for state in CACHES}
    record = begin() | {"flags": options.flags, "runs": runs}
    for _ in range(0 if options.table else options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            for state in CACHES:
                runs[state].append(run_once(cache, options.flags))
                print(f"{state} cache: {runs[state][-1][WHOLE]:.1f} s", flush=True)
    path = RESULTS / "first_minute.json"
    if not options.table:
        write(path, record)
    fill("performance.md", "first-minute", table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
