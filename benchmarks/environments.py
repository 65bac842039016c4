"""What the preset `continuous` learns on the field's tasks: `python benchmarks/environments.py [TASK …]`.

Runs the command once for each task whose results do not exist yet (`--again` runs all that are named), 8 agents of a
root seed on which nothing was tuned. Keeps `metrics.csv` and `summary.json` in `benchmarks/results/environments/`, and
prints the table of `docs/environments.md`. Needs the extras `brax`, `playground` and `gymnasium`. A task takes between
five and twenty minutes on two cores.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddpg_jax.results.statistics import iqm, iqm_interval

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "environments"
SEEDS, SEED = 8, 101
SAC = "pytorch_sac's SAC"


class Task(NamedTuple):
    """A task, and what others have published for it."""

    env_id: str
    published: dict[int, float]
    """Returns by environment steps."""
    source: str
    flags: tuple[str, ...] = ("--total-steps", "100000")


TASKS = {
    "cartpole_balance": Task("playground:CartpoleBalance", {40_000: 867, 100_000: 1000}, SAC),
    "cartpole_swingup": Task("playground:CartpoleSwingup", {40_000: 497, 100_000: 829}, SAC),
    "cartpole_swingup_sparse": Task("playground:CartpoleSwingupSparse", {40_000: 0, 100_000: 19}, SAC),
    "pendulum_swingup": Task("playground:PendulumSwingup", {40_000: 67, 100_000: 0}, SAC),
    "reacher_easy": Task("playground:ReacherEasy", {40_000: 394, 100_000: 801}, SAC),
    "ball_in_cup": Task("playground:BallInCup", {40_000: 944, 100_000: 970}, SAC),
    "finger_spin": Task("playground:FingerSpin", {40_000: 344, 100_000: 790}, SAC),
    "cheetah_run": Task("playground:CheetahRun", {40_000: 63, 100_000: 213}, SAC),
    "brax_inverted_pendulum": Task("brax:inverted_pendulum", {}, "", ("--total-steps", "50000")),
    "brax_reacher": Task("brax:reacher", {}, "", ("--total-steps", "20000", "--eval-every", "5000")),
    "gymnasium_pendulum": Task(
        "gymnasium:Pendulum-v1", {20_000: -152.1}, "rl-zoo's DDPG", ("--total-steps", "20000", "--eval-every", "5000")
    ),
    "gymnasium_inverted_pendulum": Task(
        "gymnasium:InvertedPendulum-v5",
        {1_000_000: 1000},
        "Tianshou's DDPG",
        ("--total-steps", "20000", "--eval-every", "5000"),
    ),
    "swimmer": Task("Swimmer-misc", {}, "", ("--total-steps", "20000", "--eval-every", "5000")),
    "reacher": Task("Reacher-misc", {}, "", ("--total-steps", "20000", "--eval-every", "5000")),
    "point_robot": Task("PointRobot-misc", {}, "", ("--total-steps", "20000", "--eval-every", "5000")),
}
"""All with the values of the preset, in the order of the table."""


def train(name: str, task: Task, keep: Path | None) -> None:
    """Runs the command, and keeps its tables; with `keep` also the run folder."""
    with tempfile.TemporaryDirectory() as folder:
        run = (keep or Path(folder)) / name
        words = ["--preset", "continuous", "--env-id", task.env_id, "--seeds", str(SEEDS), "--seed", str(SEED)]
        command = [sys.executable, "-m", "ddpg_jax.run", *words, *task.flags, "--out", str(run)]
        subprocess.run(command, cwd=HERE.parent, check=True)
        (RESULTS / name).mkdir(parents=True, exist_ok=True)
        for file in ("metrics.csv", "summary.json"):
            shutil.copy(run / file, RESULTS / name / file)
        started = json.loads((run / "config.json").read_text())
        started["command"] = started["command"][:-2]  # without --out, a folder of this machine
        (RESULTS / name / "config.json").write_text(json.dumps(started, indent=2) + "\n")


def returns(name: str) -> dict[int, np.ndarray]:
    """Returns the greedy returns [N] at each evaluation, by environment steps."""
    found: dict[int, list[float]] = {}
    with (RESULTS / name / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            found.setdefault(int(row["env_steps"]), []).append(float(row["eval_return"] or "nan"))
    return {steps: np.array(values) for steps, values in found.items()}


def row(name: str, task: Task) -> str:
    """Returns a row of the table."""
    found, summary = returns(name), json.loads((RESULTS / name / "summary.json").read_text())
    final, last = summary["final_return"], summary["env_steps_per_agent"]
    published = ", ".join(f"{value:g} at {steps:,}" for steps, value in task.published.items()) or "–"
    cells = [f"{iqm(found[40_000]):.0f}" if 40_000 in found else "–"]
    low, high = iqm_interval(np.array(summary["per_agent_final_return"], float))
    cells.append(f"{final['iqm']:.1f} [{low:.1f}, {high:.1f}] at {last:,}")
    cells += [f"{final['worst']:.1f}", f"{final['best']:.1f}", published, task.source or "–"]
    minutes = summary["wall_seconds"] / 60
    return f"| `{task.env_id}` | {' | '.join(cells)} | {minutes:.0f} |"


def main() -> None:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="tasks to run; none: all")
    parser.add_argument("--keep", type=Path, help="folder in which the run folders stay, for pictures of them")
    parser.add_argument("--again", action="store_true", help="run them even if their results exist")
    options = parser.parse_args()
    for name in options.tasks or TASKS:
        if options.again or not (RESULTS / name / "summary.json").exists():
            train(name, TASKS[name], options.keep)
    print("| task | at 40,000: IQM | final: IQM [95%] | worst | best | published | by | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for name, task in TASKS.items():
        if (RESULTS / name / "summary.json").exists():
            print(row(name, task))


if __name__ == "__main__":
    main()
