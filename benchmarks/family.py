"""Measures what each change after DDPG is worth: `python benchmarks/family.py --tasks pendulum`.

Climbs a ladder of changes, each on top of those before, and tries each of them alone on DDPG. All runs of a task have
the same 32 seeds, at a root seed on which nothing was tuned. Runs what is missing in `results/family/` (`--again` runs
all), and writes the tables of `docs/family.md`. On two cores `pendulum` takes a quarter of an hour; the tasks of
MuJoCo Playground need its extra, and an hour each.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from record import RESULTS, begin, fill, load_average, make_parser, markdown

import ddpg_jax
from ddpg_jax import PRESETS, Config
from ddpg_jax.results.statistics import iqm, probability_of_improvement, steps_until

SEED = 4


class Ladder(NamedTuple):
    """A task, and the values of its agents where they are not DDPG's."""

    config: Config
    values: tuple[float, float]
    """The smallest and the largest discounted return, for a categorical critic."""
    threshold: float
    """A return whose first crossing is reported."""


SMALL = PRESETS["continuous"].replace(n_step=1, hidden_sizes=(64, 64), batch_size=64, eval_every=2_500,
                                      final_episodes=16)  # fmt: skip
"""DDPG with the other values of the preset `continuous`, and networks small enough for a ladder on two cores."""

CAR = PRESETS["mountain_car"].replace(n_step=1, gamma=0.995, learning_starts=2_000, actor_normalization="none")
"""The preset `mountain_car` without what it has beyond DDPG, and with a gamma that was tried for DDPG."""

TASKS = {
    "pendulum": Ladder(PRESETS["pendulum"], (-2_000.0, 0.0), -150.0),
    "mountain_car": Ladder(CAR, (-50.0, 100.0), 85.0),
    "cartpole_swingup": Ladder(SMALL.replace(env_id="playground:CartpoleSwingup", total_steps=15_000), (0, 100), 200),
    "cartpole_balance": Ladder(SMALL.replace(env_id="playground:CartpoleBalance", total_steps=30_000), (0, 100), 900),
}

CHANGES: dict[str, dict[str, Any]] = {
    "two critics": {"num_critics": 2},
    "delayed actor": {"policy_delay": 2},
    "smoothed target": {"target_noise": 0.2},
    "3-step returns": {"n_step": 3},
    "categorical critic": {"critic_atoms": 51},
    "normalised observations": {"normalize_observations": True},
}
"""The fields of each change, in the order of the rungs."""

NAMES = {"smoothed target": "smoothed target (TD3)", "categorical critic": "categorical critics"}
"""Names of rungs that differ from those of the changes."""


def rungs() -> dict[str, dict[str, Any]]:
    """Returns the fields of each rung of the ladder, and of each change alone, by the names in the tables."""
    found: dict[str, dict[str, Any]] = {"DDPG": {}}
    climbed: dict[str, Any] = {}
    for name, fields in CHANGES.items():
        climbed = {**climbed, **fields}
        found[f"+ {NAMES.get(name, name)}"] = climbed
    return found | {name: fields for name, fields in CHANGES.items() if name != "two critics"}


def run(task: Ladder, fields: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Trains, and returns what is kept."""
    if "critic_atoms" in fields:
        fields = fields | dict(zip(("value_min", "value_max"), task.values, strict=True))
    record = begin() | {"fields": fields}
    result = ddpg_jax.train(task.config.replace(**fields), seeds=seeds, seed=SEED)
    summary, steps_and_returns = result.summary, result.history.greedy_returns()
    return record | {
        "load_average": [*record["load_average"], load_average()],
        "final_return": np.asarray(summary.per_agent_final_return).tolist(),
        "num_solved": None if summary.final_shortfall is None else summary.final_shortfall.num_solved,
        "updates_per_second": summary.updates_per_second,
        "env_steps": np.asarray(steps_and_returns[0]).tolist(),
        "eval_return": np.asarray(steps_and_returns[1]).tolist(),
    }


def cell(result: dict[str, Any], before: dict[str, Any] | None, threshold: float) -> str:
    """Returns the cell of a task; `before` is what the result is compared with."""
    final = np.array(result["final_return"], float)
    first = steps_until(np.array(result["env_steps"]), np.array(result["eval_return"]), threshold)
    median = np.median(np.nan_to_num(first, nan=np.inf))
    lines = [f"{float(iqm(final)):.1f} ({final.min():.1f})"]
    if before is not None:
        earlier = np.array(before["final_return"], float)
        lines.append("{:.2f} [{:.2f}, {:.2f}]".format(*probability_of_improvement(final, earlier)))
    return "<br>".join([*lines, f"{median:,.0f} steps" if np.isfinite(median) else "never"])


def table(names: Mapping[str, str | None], results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Returns a table of all tasks in Markdown; `names` are its rows, each with what it is compared with."""
    rows = []
    for name, before in names.items():
        cells = [cell(there[name], there[before] if before else None, TASKS[task].threshold) if name in there else "–"
                 for task, there in results.items()]  # fmt: skip
        rows.append([name, *cells])
    return markdown(["", *results], rows)


def fill_page() -> None:
    """Writes the tables of all results that there are."""
    files = {name: RESULTS / "family" / f"{name}.json" for name in TASKS}
    results = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    ladder = [name for name in rungs() if name == "DDPG" or name.startswith("+")]
    fill("family.md", "ladder", table(dict(zip(ladder, [None, *ladder], strict=False)), results))
    alone = dict.fromkeys(["+ two critics", *(name for name in rungs() if name not in ladder)], "DDPG")
    fill("family.md", "alone", table(alone, results).replace("| + ", "| "))


def main() -> None:
    """Runs what is missing, and writes the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--again", action="store_true", help="run everything again")
    parser.add_argument("--seeds", type=int, default=32, help="agents of each run (default: 32)")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS), help="these tasks only")
    parser.add_argument("--tables", action="store_true", help="run nothing; write the tables of the results")
    options = parser.parse_args()
    ddpg_jax.use_all_cores()
    for name in options.tasks:
        path = RESULTS / "family" / f"{name}.json"
        there = json.loads(path.read_text()) if path.exists() and not options.again else {}
        for change, fields in ({} if options.tables else rungs()).items():
            if change not in there:
                print(f"{name}: {change}", flush=True)
                there[change] = run(TASKS[name], fields, options.seeds)
                path.write_text(json.dumps(there) + "\n")
    fill_page()


if __name__ == "__main__":
    main()
