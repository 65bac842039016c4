"""Compares the training speed of two checkouts: `python benchmarks/speed_against.py PATH [--flags …]`.

Runs the command of this checkout and of the one at PATH in turns, with the same interpreter, and prints the ratio of
their updates per second (this one's divided by the other's), the median and the range over the pairs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import ROOT, begin

RUNS = (
    ("--preset", "pendulum", "--seeds", "32"),
    ("--preset", "keras", "--seeds", "32", "--total-steps", "1000"),
    ("--preset", "pendulum", "--seeds", "1", "--total-steps", "40000"),
    ("--preset", "keras", "--seeds", "1", "--total-steps", "8000"),
)
"""Flags of the runs that are compared."""


def updates_per_second(checkout: Path, flags: tuple[str, ...], cache: str) -> float:
    """Runs the command of a checkout; returns the updates of all agents per second of training."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": cache}
        command = [sys.executable, "-m", "ddpg_jax.run", *flags, "--quiet", "--out", f"{folder}/run"]
        subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
        return json.loads(Path(folder, "run/summary.json").read_text())["updates_per_second"]


def main() -> None:
    """Runs the pairs, and prints their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("against", type=Path, help="folder of the other checkout")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs (default: 5)")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, help="flags of the command (default: four runs)")
    options = parser.parse_args()
    begin()
    with tempfile.TemporaryDirectory() as cache:
        for flags in [tuple(options.flags)] if options.flags else RUNS:
            ratios = []
            for pair in range(options.pairs):
                order = (ROOT, options.against) if pair % 2 == 0 else (options.against, ROOT)
                speeds = {path: updates_per_second(path.resolve(), flags, cache) for path in order}
                ratios.append(speeds[ROOT] / speeds[options.against])
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            print(f"{' '.join(flags)}: {spread}", flush=True)


if __name__ == "__main__":
    main()
