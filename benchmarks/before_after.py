"""Compares the speed of training with that of other checkouts: `python benchmarks/before_after.py --against PATH`.

Runs `python -m ddpg_jax.run` of each checkout in turns, with the compiled programs of a run before the first, and takes
the updates per second that `summary.json` reports. Ratios compare runs of the same round. The other checkouts use this
environment. Writes `benchmarks/results/before_after.json`, and the table in `benchmarks/README.md`. With `--rounds 5`
and one other checkout it takes about ten minutes on two cores.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from first_minute import summary_of_run
from record import HERE, RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy

CASES: dict[str, tuple[str, ...]] = {
    "keras": ("--preset", "keras", "--seeds", "32", "--total-steps", "700"),
    "keras 64-64": ("--preset", "keras", "--hidden-sizes", "64", "64", "--seeds", "32", "--total-steps", "4000"),
    "pendulum": ("--preset", "pendulum", "--seeds", "32", "--total-steps", "4000"),
    "gist": ("--preset", "gist", "--seeds", "32", "--total-steps", "5000"),
    "keras, one agent": ("--preset", "keras", "--seeds", "1", "--total-steps", "8000"),
    "pendulum, one agent": ("--preset", "pendulum", "--seeds", "1", "--total-steps", "40000"),
}
"""The flags of each comparison; training takes some seconds."""


def updates_per_second(checkout: Path, cache: Path, flags: tuple[str, ...]) -> float:
    """Trains in a process of its own; returns the updates of all agents per second of training."""
    steps = flags[flags.index("--total-steps") + 1]
    return float(summary_of_run(checkout, cache, [*flags, "--eval-every", steps, "--quiet"])["updates_per_second"])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures all cases; returns the record."""
    checkouts = {commit(path): path for path in (*options.against, HERE.parent)}
    before = load_average()
    speeds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for case in options.only:
            speeds[case] = {name: [] for name in checkouts}
            for number in range(options.rounds + 1):  # the first fills the cache
                for name, checkout in checkouts.items():
                    speed = updates_per_second(checkout, Path(cache) / name, CASES[case])
                    print(f"{case}, round {number} of {options.rounds}, {name}: {speed:,.0f} updates/s", flush=True)
                    if number:
                        speeds[case][name].append(speed)
    return {
        "machine": describe_machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "load_average": [before, load_average()],
        "updates_per_second": speeds,
    }


def table(record: dict[str, Any]) -> str:
    """Returns the medians, and the median and the range of the ratios to each other checkout."""
    others = [name for name in next(iter(record["updates_per_second"].values())) if name != record["commit"]]
    lines = [
        f"Updates/s of all agents, medians: {record_line(record)}",
        "",
        "| run | " + " | ".join(f"{name} | {record['commit']} | ratio (range)" for name in others) + " |",
        "|---" * (1 + 3 * len(others)) + "|",
    ]
    for case, speeds in record["updates_per_second"].items():
        cells = []
        for name in others:
            ratios = [now / then for now, then in zip(speeds[record["commit"]], speeds[name], strict=True)]
            medians = [statistics.median(speeds[each]) for each in (name, record["commit"])]
            cells += [f"{median:,.0f}" for median in medians]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
        lines.append(f"| `{' '.join(CASES[case])}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, and writes the record and its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, nargs="+", required=True, help="folders of other checkouts")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each checkout (default: 5)")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="these only")
    options = parser.parse_args()
    warn_if_busy()
    record = measure(options)
    (RESULTS / "before_after.json").write_text(json.dumps(record, indent=1) + "\n")
    fill_readme("before-after", table(record))
    print(table(record))


if __name__ == "__main__":
    main()
