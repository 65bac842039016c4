"""Tries candidates for the package: `python benchmarks/trials.py --tasks FingerSpin --candidates baseline simba`.

Trains 8 agents of the preset `continuous` with each candidate (`candidates.py`), at a root seed of their own and with
the same seeds, and compares them with the baseline. Trains what is missing in `results/trials/`, a file per task and
candidate, and writes the table of `docs/family.md`. A candidate takes two to fifteen minutes per task on two cores, and
needs the extra `playground`.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from candidates import CHANGES, compose, describe
from record import RESULTS, begin, fill, load_average, make_parser, markdown

import ddpg_jax
from ddpg_jax import PRESETS
from ddpg_jax.results.statistics import iqm, paired_difference, probability_of_improvement

SEEDS, SEED = 8, 11
TASKS = {"FingerSpin": 60_000, "CheetahRun": 60_000, "CartpoleSwingup": 20_000}
"""The steps of each agent, by the tasks on which a change of the preset is chosen."""

FOLDER = RESULTS / "trials"


def run(task: str, candidate: str, steps: int, seed: int) -> dict[str, Any]:
    """Trains, and returns what is kept."""
    config = PRESETS["continuous"].replace(
        env_id=f"playground:{task}",
        total_steps=steps,
        eval_every=min(20_000, max(steps // 2, 1)),
        eval_episodes=8,
        final_episodes=8,
    )
    config, setup = compose(candidate, config)
    record = begin() | {"task": task, "candidate": candidate, "steps": steps, "seed": seed, "seeds": SEEDS}
    result = ddpg_jax.train(config, setup=setup, seeds=SEEDS, seed=seed)
    if not result.summary.complete:
        raise SystemExit("stopped: nothing is kept of this run")
    evaluated, curves = result.history.greedy_returns()
    summary = result.summary
    return record | {
        "load_average": [*record["load_average"], load_average()],
        "versions": {name: version(name) for name in ("ddpg_jax", "jax", "flax", "optax", "playground")},
        "config": config.to_dict(),
        "final_return": np.asarray(summary.per_agent_final_return).tolist(),
        "share_at_bounds": np.asarray(summary.per_agent_share_at_bounds).tolist(),
        "env_steps": np.asarray(evaluated).tolist(),
        "eval_return": np.asarray(curves).tolist(),
    }


def cell(result: dict[str, Any], baseline: dict[str, Any]) -> str:
    """Returns a candidate's cell of a task."""
    final, before = (np.array(run["eval_return"][-1], float) for run in (result, baseline))
    lines = [f"{float(iqm(final)):.0f} ({final.min():.0f} to {final.max():.0f})"]
    if result["candidate"] != "baseline":
        lines.append("{:.2f} [{:.2f}, {:.2f}]".format(*probability_of_improvement(final, before)))
        lines.append("{:+.0f} [{:+.0f}, {:+.0f}]".format(*paired_difference(final, before)))
    return "<br>".join(lines)


def table() -> str:
    """Returns the table of the candidates in Markdown, by the number of tasks on which they were tried."""
    paths = [path_of(task, name, steps, SEED) for task, steps in TASKS.items() for name in candidates_tried()]
    runs = [json.loads(path.read_text()) for path in paths if path.exists()]
    there = {(each["candidate"], each["task"]): each for each in runs}

    def order(name: str) -> tuple[bool, int, str]:
        return name != "baseline", -sum((name, task) in there for task in TASKS), name

    rows = []
    for name in sorted({name for name, _ in there}, key=order):
        cells = [cell(there[name, task], there["baseline", task]) if (name, task) in there else "–" for task in TASKS]
        rows.append([describe(name), *cells])
    return markdown(["", *(f"{task}, {steps:,} steps" for task, steps in TASKS.items())], rows)


def candidates_tried() -> set[str]:
    """Returns the names of the candidates that have a file."""
    return {path.name.split("-")[1] for path in FOLDER.glob("*-*-*.json")}


def path_of(task: str, candidate: str, steps: int, seed: int) -> Path:
    """Returns the file of a task and a candidate."""
    return FOLDER / f"{task}-{candidate}-{steps}{'' if seed == SEED else f'-root{seed}'}.json"


def main() -> None:
    """Trains what is missing, and writes the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS), help="default: all")
    parser.add_argument(
        "--candidates", nargs="*", default=[], help=f"changes, joined by + to combine them: {', '.join(CHANGES)}"
    )
    parser.add_argument("--steps", type=int, help="of each agent (default: those of the table)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"root seed (default and table: {SEED})")
    options = parser.parse_args()
    unknown = {part for name in options.candidates for part in name.split("+")} - set(CHANGES)
    if unknown:
        parser.error(f"candidates is {min(unknown)}, but must be of {', '.join(CHANGES)}")
    ddpg_jax.use_all_cores()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for candidate in options.candidates:
        for task in options.tasks:
            steps = options.steps or TASKS[task]
            path = path_of(task, candidate, steps, options.seed)
            if not path.exists():
                print(f"{task}: {candidate}", flush=True)
                path.write_text(json.dumps(run(task, candidate, steps, options.seed)) + "\n")
    fill("family.md", "trials", table())


if __name__ == "__main__":
    main()
