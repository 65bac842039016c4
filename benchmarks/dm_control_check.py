"""Runs policies that were trained in MuJoCo Playground in DeepMind's own Control Suite, which is another simulator.

`python benchmarks/dm_control_check.py RUN_FOLDER …` in an environment with `dm-control==1.0.50` and `mujoco<4`, which
is not that of the extra `playground`. Each agent runs `--episodes` episodes from the suite's own start states. Prints
the returns beside those of the run's own summary, and adds them to `benchmarks/results/dm_control_check.json`.
"""

import argparse
import json
from importlib import metadata
from pathlib import Path

import numpy as np
from dm_control import suite

from ddpg_jax import load_policy
from ddpg_jax.results.statistics import iqm_interval

RESULTS = Path(__file__).parent / "results" / "dm_control_check.json"
TASKS = {
    "playground:CartpoleBalance": ("cartpole", "balance"),
    "playground:CartpoleSwingup": ("cartpole", "swingup"),
    "playground:CartpoleSwingupSparse": ("cartpole", "swingup_sparse"),
    "playground:PendulumSwingup": ("pendulum", "swingup"),
    "playground:ReacherEasy": ("reacher", "easy"),
    "playground:BallInCup": ("ball_in_cup", "catch"),
    "playground:FingerSpin": ("finger", "spin"),
    "playground:CheetahRun": ("cheetah", "run"),
}
"""The same task in the suite."""

ORDER = {"playground:PendulumSwingup": [1, 0, 2]}
"""Which of the suite's numbers Playground observes in each place, where the order differs."""


def returns(run: Path, env_id: str, episodes: int) -> np.ndarray:
    """Returns the returns [N, episodes] of the run's agents."""
    policy = load_policy(run)
    total = np.zeros((policy.num_agents, episodes))
    grid = [[suite.load(*TASKS[env_id], task_kwargs={"random": i}) for i in range(episodes)] for _ in total]
    steps = [[env.reset() for env in row] for row in grid]
    while not steps[0][0].last():  # all episodes have the same length
        seen = np.array(
            [[np.concatenate([np.ravel(x) for x in step.observation.values()]) for step in row] for row in steps]
        )
        seen = seen[..., ORDER.get(env_id, slice(None))]
        actions = np.asarray(policy.each(seen.astype(np.float32)), float)
        steps = [[env.step(actions[i, j]) for j, env in enumerate(row)] for i, row in enumerate(grid)]
        total += [[step.reward for step in row] for row in steps]
    return total


def main() -> None:
    """Checks the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--episodes", type=int, default=16, help="episodes per agent (default: 16)")
    options = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for run in options.runs:
        summary = json.loads((run / "summary.json").read_text())
        found = returns(run, summary["env_id"], options.episodes).mean(axis=1)
        ours = np.array(summary["per_agent_final_return"], float)
        record[summary["env_id"]] = {
            "episodes": options.episodes,
            "dm_control": found.tolist(),
            "playground": ours.tolist(),
            "versions": {name: metadata.version(name) for name in ("dm-control", "mujoco")},
        }
        intervals = [
            f"mean {x.mean():.1f}, IQM [{a:.1f}, {b:.1f}]" for x in (found, ours) for a, b in [iqm_interval(x)]
        ]
        print(f"{summary['env_id']}: dm_control {intervals[0]}; Playground {intervals[1]}", flush=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
