"""Compares two processes on this machine with one process on two host devices: the same run, in turns.

`python benchmarks/distributed.py` trains the same agents with `--devices 2` and with `--distributed --num-processes 2`,
alternately. It compares the tables and the policies of both byte for byte, and computes the ratios of the seconds for
training and for the whole command. The result goes to `benchmarks/results/distributed.json`. The benchmark takes about
twenty minutes on two cores without AVX-512.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from record import commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy

from ddpg_jax import load_policy

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "distributed.json"

RUNS = {
    "keras": ("--preset", "keras", "--seeds", "32", "--total-steps", "1000"),
    "keras 64-64": ("--preset", "keras", "--hidden-sizes", "64", "64", "--seeds", "32", "--total-steps", "4000"),
    "pendulum": ("--preset", "pendulum", "--seeds", "32"),
    "gist": ("--preset", "gist", "--seeds", "32", "--total-steps", "4000"),
}
"""The flags of each run, which trains for ten to forty seconds."""

WAYS = {"one": ("--devices", "2"), "two": ("--distributed", "--num-processes", "2")}
"""The flags for one process and for two."""


def run(flags: tuple[str, ...], folder: Path) -> dict[str, float]:
    """Runs the command; returns the seconds of the whole command, and those in its summary."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "ddpg_jax.run", *flags, "--out", str(folder), "--quiet"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    seconds = time.perf_counter() - start
    summary = json.loads((folder / "summary.json").read_text())
    names = ("train_seconds", "compile_seconds", "evaluation_seconds", "checkpoint_seconds")
    return {"command_seconds": seconds, **{name: summary[name] for name in names}}


def are_equal(folder: Path, other: Path) -> bool:
    """Returns whether two runs have written the same tables and the same policies."""
    tables = all(
        (folder / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.csv", "episodes.csv")
    )
    variables = zip(*(jax.tree.leaves(load_policy(path).variables) for path in (folder, other)), strict=True)
    return tables and all(np.asarray(here).tobytes() == np.asarray(there).tobytes() for here, there in variables)


def compare(flags: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """Runs one process and two processes in turns; which of them goes first alternates."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    equal = True
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(repeats):
            folders = {way: Path(scratch) / f"{way}-{repeat}" for way in WAYS}
            for way in sorted(WAYS, reverse=bool(repeat % 2)):
                found[way].append(run((*flags, *WAYS[way]), folders[way]))
            equal &= are_equal(folders["one"], folders["two"])
    pairs = list(zip(found["two"], found["one"], strict=True))
    ratios = {name: statistics.median(two[name] / one[name] for two, one in pairs) for name in found["one"][0]}
    return {"flags": flags, "equal": equal, "ratios": ratios, "runs": found}


def table(record: dict[str, Any]) -> str:
    """Returns the table of the ratios for `benchmarks/README.md`."""
    names = {"train_seconds": "training", "evaluation_seconds": "evaluation", "compile_seconds": "compilation",
             "command_seconds": "whole command"}  # fmt: skip
    lines = [
        f"Seconds of two processes divided by seconds of one, medians of {record['repeats']} pairs: "
        f"{record_line(record)}",
        "",
        f"| run | {' | '.join(names.values())} | same bytes |",
        f"|---|{'---|' * (len(names) + 1)}",
    ]
    for found in record["results"].values():
        cells = [f"{found['ratios'][name]:.2f}" for name in names]
        lines.append(f"| `{' '.join(found['flags'])}` | {' | '.join(cells)} | {'yes' if found['equal'] else 'NO'} |")
    return "\n".join(lines)


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs (default: 3)")
    options = parser.parse_args()
    warn_if_busy()
    load = [load_average()]
    results = {name: compare(flags, options.repeats) for name, flags in RUNS.items()}
    record = {
        "machine": describe_machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "repeats": options.repeats,
        "results": results,
        "load_average": [*load, load_average()],
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    fill_readme("distributed", table(record))
    return int(not all(found["equal"] for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
