"""Measures what each change after DDPG is worth: `python benchmarks/family.py --tasks pendulum`.

Climbs a ladder of changes, each on top of those before, and tries each of them alone on DDPG, with the same 32 seeds in
pairs. Runs the command once for each entry of LADDER and ALONE, except those whose results exist already (`--again`
runs all), keeps the results in `benchmarks/results/family/`, and writes the tables of `docs/family.md`. On two cores
`pendulum` takes about a quarter of an hour. `cartpole_swingup` and `cartpole_balance` need the extra `playground`;
beside other work the first took more than an hour, and the second half an hour.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import BUSY_LOAD, commit, describe_machine, load_average

from ddpg_jax.results.statistics import iqm, iqm_interval, probability_of_improvement, steps_until

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "family"
PAGE = HERE.parent / "docs" / "family.md"


class Task(NamedTuple):
    """A task of the ladder, at a root seed on which nothing was tuned."""

    flags: tuple[str, ...]
    values: tuple[str, str]
    """The smallest and the largest discounted return, for a categorical critic."""
    threshold: float
    """A return whose first crossing is reported."""


SMALL = (
    "--preset", "continuous", "--n-step", "1", "--hidden-sizes", "64", "64", "--batch-size", "64",
    "--eval-every", "2500", "--final-episodes", "16", "--seed", "4",
)  # fmt: skip
"""DDPG with the other values of the preset `continuous`, and networks small enough for a ladder on two cores."""

CAR = (
    "--preset", "mountain_car", "--n-step", "1", "--gamma", "0.995", "--learning-starts", "2000",
    "--actor-normalization", "none", "--seed", "4",
)  # fmt: skip
"""The preset `mountain_car` without what it has beyond DDPG, and with a gamma that was tried for DDPG."""

TASKS = {
    "pendulum": Task(("--preset", "pendulum", "--seed", "4"), ("-2000", "0"), -150.0),
    "mountain_car": Task(CAR, ("-50", "100"), 85.0),
    "cartpole_swingup": Task(
        ("--env-id", "playground:CartpoleSwingup", *SMALL, "--total-steps", "15000"), ("0", "100"), 200.0
    ),
    "cartpole_balance": Task(
        ("--env-id", "playground:CartpoleBalance", *SMALL, "--total-steps", "30000"), ("0", "100"), 900.0
    ),
}

TWIN, DELAY, SMOOTH = ("--num-critics", "2"), ("--policy-delay", "2"), ("--target-noise", "0.2")
STEPS, NORMAL = ("--n-step", "3"), ("--normalize-observations",)
ATOMS = ("--critic-atoms", "51", "--value-min", "{low}", "--value-max", "{high}")

LADDER: dict[str, tuple[str, ...]] = {
    "DDPG": (),
    "+ two critics": TWIN,
    "+ delayed actor": TWIN + DELAY,
    "+ smoothed target (TD3)": TWIN + DELAY + SMOOTH,
    "+ 3-step returns": TWIN + DELAY + SMOOTH + STEPS,
    "+ categorical critics": TWIN + DELAY + SMOOTH + STEPS + ATOMS,
    "+ normalised observations": TWIN + DELAY + SMOOTH + STEPS + ATOMS + NORMAL,
}
"""The flags of each rung."""

ALONE: dict[str, tuple[str, ...]] = {
    "delayed actor": DELAY,
    "smoothed target": SMOOTH,
    "3-step returns": STEPS,
    "categorical critic": ATOMS,
    "normalised observations": NORMAL,
}
"""The flags of each change on DDPG alone; two critics alone are the first rung."""


def run(task: Task, flags: tuple[str, ...], seeds: int) -> dict[str, Any]:
    """Trains, and returns what is kept of the run."""
    low, high = task.values
    words = [*task.flags, *(flag.format(low=low, high=high) for flag in flags)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        load = load_average()
        command = [sys.executable, "-m", "ddpg_jax.run", "--seeds", str(seeds), *words, "--quiet", "--out", str(out)]
        subprocess.run(command, check=True)
        summary = json.loads((out / "summary.json").read_text())
        with open(out / "metrics.csv") as file:
            table = list(csv.DictReader(file))
    steps = sorted({int(row["env_steps"]) for row in table})
    curve = [[float(row["eval_return"] or "nan") for row in table if int(row["env_steps"]) == step] for step in steps]
    return {
        "flags": words,
        "final_return": summary["per_agent_final_return"],
        "num_solved": summary.get("final_shortfall", {}).get("num_solved"),
        "updates_per_second": summary["updates_per_second"],
        "env_steps": steps,
        "eval_return": curve,
        "load_average": [load, load_average()],
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": describe_machine(),
    }


def row(name: str, result: dict[str, Any], before: dict[str, Any], ddpg: dict[str, Any], task: Task) -> str:
    """Returns a row of a table; `before` is what the result is compared with."""
    final, earlier = (np.array(each["final_return"], float) for each in (result, before))
    low, high = iqm_interval(final)
    better = "" if result is before else "{:.2f} [{:.2f}, {:.2f}]".format(*probability_of_improvement(final, earlier))
    first = steps_until(np.array(result["env_steps"]), np.array(result["eval_return"]), task.threshold)
    reached = np.isfinite(first)
    median = f"{np.median(np.where(reached, first, np.inf)):,.0f}" if reached.mean() > 0.5 else "never"
    solved = "" if result["num_solved"] is None else f"{result['num_solved']} of {len(final)}"
    speed, base = result["updates_per_second"], ddpg["updates_per_second"]
    updates = "–" if was_disturbed(result) or was_disturbed(ddpg) else f"{speed:,.0f} ({speed / base:.2f})"
    return (
        f"| {name} | {float(iqm(final)):.1f} [{low:.1f}, {high:.1f}] | {final.min():.1f} | {solved} | {better} "
        f"| {median} | {int(reached.sum())} | {updates} |"
    )


def was_disturbed(result: dict[str, Any]) -> bool:
    """Returns whether other work ran beside a run, so that its speed says nothing."""
    return max(result["load_average"]) > result["machine"]["cores"] + BUSY_LOAD


def tables(name: str) -> str:
    """Returns the two tables of a task in Markdown."""
    task, there = TASKS[name], json.loads((RESULTS / f"{name}.json").read_text())
    head = (
        "final return: IQM [95%] | worst | solved | P(better than {}) [95%] "
        f"| steps to {task.threshold:g}, median | reached it | updates/s (of DDPG) |\n|---|---|---|---|---|---|---|---|"
    )
    lines, before = [f"| rung | {head.format('the rung before')}"], there["DDPG"]
    for rung in (rung for rung in LADDER if rung in there):
        lines.append(row(rung, there[rung], before, there["DDPG"], task))
        before = there[rung]
    alone = [row(change, there[change], there["DDPG"], there["DDPG"], task) for change in ALONE if change in there]
    lines += ["", f"| alone on DDPG | {head.format('DDPG')}", *alone] if alone else []
    one = there["DDPG"]
    machine = one["machine"]
    lines += ["", f"{machine['cpu']}, {machine['cores']} cores; commit {one['commit']}; {one['date']}; "
              f"`{' '.join(task.flags)} --seeds {len(one['final_return'])}`."]  # fmt: skip
    return "\n".join(lines)


def fill_page(name: str, text: str) -> None:
    """Writes the text between the marks of that name in the page."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = PAGE.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if found:
        PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    """Runs what is missing, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="run everything again")
    parser.add_argument("--seeds", type=int, default=32, help="agents of each run (default: 32)")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS), help="these tasks only")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.tasks:
        file = RESULTS / f"{name}.json"
        there = json.loads(file.read_text()) if file.exists() and not options.again else {}
        for change, flags in {**LADDER, **ALONE}.items():
            if change not in there:
                print(f"{name}: {change}", flush=True)
                there[change] = run(TASKS[name], flags, options.seeds)
                file.write_text(json.dumps(there) + "\n")
        fill_page(name, tables(name))


if __name__ == "__main__":
    main()
