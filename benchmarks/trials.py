"""Tries candidates for the package: `python benchmarks/trials.py --tasks FingerSpin --candidates baseline simba`.

Trains 8 agents of the preset `continuous` with each candidate (`candidates.py`), at a root seed of their own and with
the same seeds, and compares them with the baseline. Trains what is missing in `results/trials/`, a file per task and
candidate, and writes the table of all files there. A candidate takes five minutes or more per task on two cores, and
needs the extra `playground`.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from candidates import CHANGES, compose
from record import RESULTS, begin, load_average

import ddpg_jax
from ddpg_jax import PRESETS
from ddpg_jax.results.statistics import iqm, paired_difference, probability_of_improvement

SEED = 11
TASKS = ("FingerSpin", "CheetahRun", "CartpoleSwingup")
FOLDER = RESULTS / "trials"


def run(task: str, candidate: str, steps: int, seeds: int, seed: int) -> dict[str, Any]:
    """Trains, and returns what is kept."""
    config = PRESETS["continuous"].replace(
        env_id=f"playground:{task}",
        total_steps=steps,
        eval_every=min(20_000, max(steps // 2, 1)),
        eval_episodes=8,
        final_episodes=8,
    )
    config, setup = compose(candidate, config)
    record = begin() | {"task": task, "candidate": candidate, "steps": steps, "seed": seed, "seeds": seeds}
    seconds: list[float] = []  # of the processor, at each evaluation: other work on the machine distorts them least
    result = ddpg_jax.train(
        config, setup=setup, seeds=seeds, seed=seed, callback=lambda _: seconds.append(time.process_time())
    )
    if not result.summary.complete:
        raise SystemExit("stopped: nothing is kept of this run")
    evaluated, curves = result.history.greedy_returns()
    train_seconds, summary = result.summary.train_seconds, result.summary
    return record | {
        "load_average": [*record["load_average"], load_average()],
        "versions": {name: version(name) for name in ("ddpg_jax", "jax", "flax", "optax", "playground")},
        "config": config.to_dict(),
        "final_return": np.asarray(summary.per_agent_final_return).tolist(),
        "share_at_bounds": np.asarray(summary.per_agent_share_at_bounds).tolist(),
        "env_steps": np.asarray(evaluated).tolist(),
        "eval_return": np.asarray(curves).tolist(),
        "seconds_per_step": train_seconds / (steps * seeds),
        "cpu_seconds_per_step": (seconds[-1] - seconds[0]) / ((evaluated[-1] - evaluated[0]) * seeds),
    }


def returns(result: dict[str, Any], steps: int) -> np.ndarray:
    """Returns the greedy returns [N] of agents after so many steps, also of a run that went on from there."""
    return np.array(result["eval_return"], float)[result["env_steps"].index(steps)]


def cell(result: dict[str, Any], baseline: dict[str, Any], steps: int) -> str:
    """Returns a candidate's cell of a task."""
    final, before = returns(result, steps), returns(baseline, steps)
    lines = [f"{float(iqm(final)):.0f} ({final.min():.0f} to {final.max():.0f})"]
    if result is not baseline:
        lines.append("{:.2f} [{:.2f}, {:.2f}]".format(*probability_of_improvement(final, before)))
        both = min(len(final), len(before))
        lines.append("{:+.0f} [{:+.0f}, {:+.0f}]".format(*paired_difference(final[:both], before[:both])))
        lines.append(f"time {result['cpu_seconds_per_step'] / baseline['cpu_seconds_per_step']:.2f}")
    return "<br>".join(lines)


def table(steps: int) -> str:
    """Returns the table of the longest run of each candidate at so many steps in Markdown, the best first."""
    files = (json.loads(path.read_text()) for path in FOLDER.glob("*-*-*.json"))
    found = sorted((each for each in files if each["seed"] == SEED), key=lambda each: each["steps"])
    there = {(each["candidate"], each["task"]): each for each in found if steps in (each["steps"], *each["env_steps"])}
    tasks = [task for task in TASKS if ("baseline", task) in there]
    names = {name for name, task in there if task in tasks} - {"baseline"}

    def chance(name: str) -> float:
        pairs = [(there[name, task], there["baseline", task]) for task in tasks if (name, task) in there]
        return float(np.mean([probability_of_improvement(*(returns(run, steps) for run in pair))[0] for pair in pairs]))

    lines = [f"| {steps:,} steps | {' | '.join(tasks)} |", "|---" * (1 + len(tasks)) + "|"]
    for name in ["baseline", *sorted(names, key=chance, reverse=True)]:
        runs = [(there.get((name, task)), there["baseline", task]) for task in tasks]
        lines.append(f"| {name} | {' | '.join(cell(run, base, steps) if run else '–' for run, base in runs)} |")
    return "\n".join(lines)


def path_of(task: str, candidate: str, steps: int, seed: int) -> Path:
    """Returns the file of a task and a candidate."""
    return FOLDER / f"{task}-{candidate}-{steps}{'' if seed == SEED else f'-root{seed}'}.json"


def main() -> None:
    """Trains what is missing, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS, help="default: all")
    parser.add_argument(
        "--candidates", nargs="*", default=[], help=f"changes, joined by + to combine them: {', '.join(CHANGES)}"
    )
    parser.add_argument("--steps", type=int, default=60_000, help="of each agent (default: 60000)")
    parser.add_argument("--seeds", type=int, default=8, help="agents of each run (default: 8)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"root seed (default and table: {SEED})")
    options = parser.parse_args()
    unknown = {part for name in options.candidates for part in name.split("+")} - set(CHANGES)
    if unknown:
        parser.error(f"candidates is {min(unknown)}, but must be of {', '.join(CHANGES)}")
    ddpg_jax.use_all_cores()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for candidate in options.candidates:
        for task in options.tasks:
            path = path_of(task, candidate, options.steps, options.seed)
            if not path.exists():
                print(f"{task}: {candidate}", flush=True)
                path.write_text(json.dumps(run(task, candidate, options.steps, options.seeds, options.seed)) + "\n")
    text = table(options.steps)
    print(text)
    (FOLDER / f"table-{options.steps}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
