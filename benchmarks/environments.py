"""What the preset `continuous` learns on the field's tasks: `python benchmarks/environments.py [TASK …]`.

Trains 8 agents of a root seed on which nothing was tuned, on each task whose results are missing (`--again` trains all
that are named). Keeps the run folder's tables in `results/environments/`, and writes the table of
`docs/environments.md`. Needs the extras `brax`, `playground` and `gymnasium`. A task takes between five and twenty
minutes on two cores.
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
from ddpg_jax import PRESETS
from ddpg_jax.results.statistics import iqm, iqm_interval

SEEDS, SEED = 8, 101
SAC, ZOO, TIANSHOU = "pytorch_sac's SAC", "rl-zoo's DDPG", "Tianshou's DDPG"


class Task(NamedTuple):
    """A task, and what others have published for it."""

    env_id: str
    steps: int = 100_000
    published: dict[int, float] = {}  # noqa: RUF012  (nobody changes it)
    """Returns by environment steps."""
    source: str = "–"


TASKS = {
    "cartpole_balance": Task("playground:CartpoleBalance", published={40_000: 867, 100_000: 1000}, source=SAC),
    "cartpole_swingup": Task("playground:CartpoleSwingup", published={40_000: 497, 100_000: 829}, source=SAC),
    "cartpole_swingup_sparse": Task("playground:CartpoleSwingupSparse", published={40_000: 0, 100_000: 19}, source=SAC),
    "pendulum_swingup": Task("playground:PendulumSwingup", published={40_000: 67, 100_000: 0}, source=SAC),
    "reacher_easy": Task("playground:ReacherEasy", published={40_000: 394, 100_000: 801}, source=SAC),
    "ball_in_cup": Task("playground:BallInCup", published={40_000: 944, 100_000: 970}, source=SAC),
    "finger_spin": Task("playground:FingerSpin", published={40_000: 344, 100_000: 790}, source=SAC),
    "cheetah_run": Task("playground:CheetahRun", published={40_000: 63, 100_000: 213}, source=SAC),
    "brax_inverted_pendulum": Task("brax:inverted_pendulum", 50_000),
    "brax_reacher": Task("brax:reacher", 20_000),
    "gymnasium_pendulum": Task("gymnasium:Pendulum-v1", 20_000, {20_000: -152.1}, ZOO),
    "gymnasium_inverted_pendulum": Task("gymnasium:InvertedPendulum-v5", 20_000, {1_000_000: 1000}, TIANSHOU),
    "swimmer": Task("Swimmer-misc", 20_000),
    "reacher": Task("Reacher-misc", 20_000),
    "point_robot": Task("PointRobot-misc", 20_000),
}
"""All with the values of the preset, in the order of the table."""


def train(name: str, task: Task, keep: Path | None) -> None:
    """Trains, and keeps the tables of the run folder; with `keep` also the folder."""
    every = 10_000 if task.steps > 20_000 else 5_000
    config = PRESETS["continuous"].replace(env_id=task.env_id, total_steps=task.steps, eval_every=every)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (keep or Path(scratch)) / name
        ddpg_jax.train(config, seeds=SEEDS, seed=SEED, out=folder)
        (RESULTS / "environments" / name).mkdir(parents=True, exist_ok=True)
        for file in ("metrics.csv", "summary.json", "config.json"):
            shutil.copy(folder / file, RESULTS / "environments" / name / file)


def row(name: str, task: Task) -> list[str]:
    """Returns a row of the table."""
    folder = RESULTS / "environments" / name
    summary = json.loads((folder / "summary.json").read_text())
    with (folder / "metrics.csv").open() as file:
        early = [float(line["eval_return"] or "nan") for line in csv.DictReader(file) if line["env_steps"] == "40000"]
    final = np.array(summary["per_agent_final_return"], float)
    low, high = iqm_interval(final)
    published = ", ".join(f"{value:g} at {steps:,}" for steps, value in task.published.items()) or "–"
    cells = [f"`{task.env_id}`", f"{iqm(np.array(early)):.0f}" if early else "–"]
    cells += [f"{iqm(final):.1f} [{low:.1f}, {high:.1f}] at {task.steps:,}", f"{final.min():.1f}", f"{final.max():.1f}"]
    return [*cells, published, task.source, f"{summary['wall_seconds'] / 60:.0f}"]


def main() -> None:
    """Trains what is missing, and writes the table."""
    parser = make_parser(__doc__)
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="tasks to train; none: all")
    parser.add_argument("--keep", type=Path, help="folder in which the run folders stay, for pictures of them")
    parser.add_argument("--again", action="store_true", help="train them even if their results exist")
    parser.add_argument("--table", action="store_true", help="train nothing; write the table of the results")
    options = parser.parse_args()
    ddpg_jax.use_all_cores()
    for name in () if options.table else options.tasks or TASKS:
        if options.again or not (RESULTS / "environments" / name / "summary.json").exists():
            train(name, TASKS[name], options.keep)
    columns = ("task", "at 40,000: IQM", "final: IQM [95%]", "worst", "best", "published", "by", "minutes")
    there = [name for name in TASKS if (RESULTS / "environments" / name / "summary.json").exists()]
    fill("environments.md", "table", markdown(columns, [row(name, TASKS[name]) for name in there]))


if __name__ == "__main__":
    main()
