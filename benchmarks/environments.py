"""What the preset `continuous` learns on the field's tasks: `python benchmarks/environments.py [TASK …]`.

Trains 8 agents of a root seed on which nothing was tuned, on each task whose results are missing (`--again` trains all
that are named). Keeps the run folder's tables in `results/environments/`, and writes the tables of
`docs/environments.md`, beside what others have published (`published.csv`). Needs the extras `brax`, `playground` and
`gymnasium`. A task of 100,000 steps takes between five and twenty minutes on two cores.
"""

import csv
import json
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from record import RESULTS, fill, make_parser, markdown

import ddpg_jax
from ddpg_jax import PRESETS, Config
from ddpg_jax.results.statistics import iqm, iqm_interval

SEEDS, SEED = 8, 101
FOLDER = RESULTS / "environments"
PUBLISHED = Path(__file__).parent / "published.csv"
AGENTS = ("TD7", "MR.Q", "SAC", "SAC + SimBa", "SimbaV2", "XQC", "BRO, 2 updates", "SimbaV2, 8 updates",
          "BRO, 10 updates")  # fmt: skip
"""Published agents that have a column in the table of the Control Suite, in the order of their updates per frame."""


class Task(NamedTuple):
    """A task, and how long its agents train."""

    env_id: str
    steps: int = 100_000


TASKS = {
    "cartpole_balance": Task("playground:CartpoleBalance"),
    "cartpole_swingup": Task("playground:CartpoleSwingup"),
    "cartpole_swingup_sparse": Task("playground:CartpoleSwingupSparse"),
    "pendulum_swingup": Task("playground:PendulumSwingup"),
    "reacher_easy": Task("playground:ReacherEasy"),
    "ball_in_cup": Task("playground:BallInCup"),
    "finger_spin": Task("playground:FingerSpin"),
    "cheetah_run": Task("playground:CheetahRun"),
    "walker_run": Task("playground:WalkerRun"),
    "hopper_hop": Task("playground:HopperHop"),
    "acrobot_swingup": Task("playground:AcrobotSwingup"),
    "fish_swim": Task("playground:FishSwim"),
    "finger_turn_hard": Task("playground:FingerTurnHard"),
    "finger_spin_500k": Task("playground:FingerSpin", 500_000),
    "cheetah_run_500k": Task("playground:CheetahRun", 500_000),
    "brax_inverted_pendulum": Task("brax:inverted_pendulum", 50_000),
    "brax_reacher": Task("brax:reacher", 20_000),
    "gymnasium_pendulum": Task("gymnasium:Pendulum-v1", 20_000),
    "gymnasium_inverted_pendulum": Task("gymnasium:InvertedPendulum-v5", 20_000),
    "half_cheetah": Task("gymnasium:HalfCheetah-v5"),
    "hopper": Task("gymnasium:Hopper-v5"),
    "walker2d": Task("gymnasium:Walker2d-v5"),
    "swimmer": Task("Swimmer-misc", 20_000),
    "reacher": Task("Reacher-misc", 20_000),
    "point_robot": Task("PointRobot-misc", 20_000),
}
"""All with the values of the preset, in the order of the tables."""

SEVEN = ("CartpoleBalance", "CartpoleSwingup", "CartpoleSwingupSparse", "PendulumSwingup", "ReacherEasy", "FingerSpin",
         "CheetahRun")  # fmt: skip
"""The tasks for which almost all published agents have a score, whose mean is reported."""


def train(name: str, task: Task, keep: Path | None) -> None:
    """Trains, and keeps the tables of the run folder; with `keep` also the folder."""
    every = 10_000 if task.steps > 20_000 else 5_000
    config = PRESETS["continuous"].replace(env_id=task.env_id, total_steps=task.steps, eval_every=every)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (keep or Path(scratch)) / name
        ddpg_jax.train(config, seeds=SEEDS, seed=SEED, out=folder)
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
        for file in ("metrics.csv", "summary.json", "config.json"):
            shutil.copy(folder / file, FOLDER / name / file)


def measured(name: str, task: Task) -> list[str]:
    """Returns a task's cells: name, steps, interquartile mean with interval, mean, worst to best, minutes."""
    summary = json.loads((FOLDER / name / "summary.json").read_text())
    final = np.array(summary["per_agent_final_return"], float)
    low, high = iqm_interval(final)
    numbers = [
        f"{iqm(final):.1f} [{low:.1f}, {high:.1f}]",
        f"{final.mean():.1f}",
        f"{final.min():.1f} to {final.max():.1f}",
    ]
    return [f"`{task.env_id}`{differences(name)}", f"{task.steps:,}", *numbers, f"{summary['wall_seconds'] / 60:.0f}"]


def differences(name: str) -> str:
    """Returns in which fields of learning a result's configuration is not that of today's preset."""
    then = Config().to_dict() | json.loads((FOLDER / name / "config.json").read_text())["config"]
    of_run = {"env_id", "total_steps", "eval_every", "eval_episodes", "final_episodes"}
    today = PRESETS["continuous"].to_dict()
    changed = [f"{field} {then[field]}" for field in today if field not in of_run and then[field] != today[field]]
    return f" (with {', '.join(changed)})" if changed else ""


def published() -> dict[tuple[str, int], dict[str, dict[str, str]]]:
    """Returns the rows of `published.csv` by task, number of steps, and agent."""
    by_task: dict[tuple[str, int], dict[str, dict[str, str]]] = {}
    with PUBLISHED.open() as file:
        for row in csv.DictReader(file):
            by_task.setdefault((row["task"], int(row["env_steps"])), {})[row["agent"]] = row
    return by_task


def unversioned(task: str) -> str:
    """Returns the name of a task of Gymnasium without its version, in which published scores differ from ours."""
    return task.partition("-v")[0]


def mean_of_seven(others: dict[tuple[str, int], dict[str, dict[str, str]]]) -> list[str]:
    """Returns the row with the mean of the seven tasks after 100,000 steps."""
    names = {task.env_id.rpartition(":")[2]: name for name, task in TASKS.items() if task.steps == 100_000}
    ours = [json.loads((FOLDER / names[task] / "summary.json").read_text())["final_return"]["mean"] for task in SEVEN]
    cells = ["mean of seven, without BallInCup", "100,000", "–", f"{np.mean(ours):.1f}", "–", "–"]
    for agent in AGENTS:
        scores = [
            float(others[task, 100_000][agent]["mean_return"]) for task in SEVEN if agent in others[task, 100_000]
        ]
        cells.append(f"{np.mean(scores):.0f}" if len(scores) == len(SEVEN) else "–")
    return cells


def write_tables() -> None:
    """Writes the tables of all results."""
    others = published()
    header = {row["agent"]: row for rows in others.values() for row in rows.values() if not row["task"].endswith("-v4")}
    agents = [f"{name} ({header[name]['action_repeat']}; {header[name]['updates_per_frame']})" for name in AGENTS]
    suite, rest = [mean_of_seven(others)], []
    for name, task in TASKS.items():
        if not (FOLDER / name / "summary.json").exists():
            continue
        cells, (library, _, short) = measured(name, task), task.env_id.rpartition(":")
        if library == "playground":
            there = others.get((short, task.steps), {})
            scores = [f"{float(there[agent]['mean_return']):.0f}" if agent in there else "–" for agent in AGENTS]
            suite.append([*cells, *scores])
        else:
            found = [
                row
                for (each, _), rows in others.items()
                if unversioned(each) == unversioned(short)
                for row in rows.values()
            ]
            text = [f"{float(row['mean_return']):g} at {int(row['env_steps']):,} ({row['agent']})" for row in found]
            rest.append([*cells, "<br>".join(text) or "–"])
    columns = ("task", "steps", "IQM [95%]", "mean", "worst to best", "minutes")
    fill("environments.md", "suite", markdown((*columns, *agents), suite))
    fill("environments.md", "others", markdown((*columns, "published"), rest))


def main() -> None:
    """Trains what is missing, and writes the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="tasks to train; none: all")
    parser.add_argument("--keep", type=Path, help="folder in which the run folders stay, for pictures of them")
    parser.add_argument("--again", action="store_true", help="train them even if their results exist")
    parser.add_argument("--table", action="store_true", help="train nothing; write the tables of the results")
    options = parser.parse_args()
    ddpg_jax.use_all_cores()
    for name in () if options.table else options.tasks or TASKS:
        if options.again or not (FOLDER / name / "summary.json").exists():
            train(name, TASKS[name], options.keep)
    write_tables()


if __name__ == "__main__":
    main()
