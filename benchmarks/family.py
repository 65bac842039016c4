"""Measures what each change after DDPG is worth: `python benchmarks/family.py --tasks pendulum`.

Climbs a ladder of changes, each on top of those before, and tries each of them alone on DDPG. All runs of a task have
the same 32 seeds, at a root seed on which nothing was tuned. Runs what is missing in `results/family/` (`--again` runs
all), and writes the tables of `docs/family.md`. On two cores `pendulum` takes a quarter of an hour; the tasks of
MuJoCo Playground need its extra, and an hour each.
"""

import argparse
import json
from typing import Any, NamedTuple

import numpy as np
from record import BUSY_LOAD, RESULTS, begin, fill, load_average

import ddpg_jax
from ddpg_jax import PRESETS, Config
from ddpg_jax.results.statistics import iqm, iqm_interval, probability_of_improvement, steps_until

SEED = 4


class Ladder(NamedTuple):
    """A task, and the values of its agents where they are not DDPG's."""

    config: Config
    values: tuple[float, float]
    """The smallest and the largest discounted return, for a categorical critic."""
    threshold: float
    """A return whose first crossing is reported."""


SMALL = PRESETS["continuous"].replace(
    n_step=1, hidden_sizes=(64, 64), batch_size=64, eval_every=2_500, final_episodes=16
)
"""DDPG with the other values of the preset `continuous`, and networks small enough for a ladder on two cores."""

CAR = PRESETS["mountain_car"].replace(n_step=1, gamma=0.995, learning_starts=2_000, actor_normalization="none")
"""The preset `mountain_car` without what it has beyond DDPG, and with a gamma that was tried for DDPG."""

TASKS = {
    "pendulum": Ladder(PRESETS["pendulum"], (-2_000.0, 0.0), -150.0),
    "mountain_car": Ladder(CAR, (-50.0, 100.0), 85.0),
    "cartpole_swingup": Ladder(
        SMALL.replace(env_id="playground:CartpoleSwingup", total_steps=15_000), (0.0, 100.0), 200.0
    ),
    "cartpole_balance": Ladder(
        SMALL.replace(env_id="playground:CartpoleBalance", total_steps=30_000), (0.0, 100.0), 900.0
    ),
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
    found, climbed = {"DDPG": {}}, {}
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


def was_busy(result: dict[str, Any]) -> bool:
    """Returns whether other work ran on the machine, so that the speed of the run says nothing."""
    return max(result["load_average"]) > result["machine"]["cores"] + BUSY_LOAD


def row(name: str, result: dict[str, Any], before: dict[str, Any], ddpg: dict[str, Any], threshold: float) -> list[str]:
    """Returns the cells of a row; `before` is what the result is compared with."""
    final, earlier = (np.array(each["final_return"], float) for each in (result, before))
    low, high = iqm_interval(final)
    better = "" if result is before else "{:.2f} [{:.2f}, {:.2f}]".format(*probability_of_improvement(final, earlier))
    first = steps_until(np.array(result["env_steps"]), np.array(result["eval_return"]), threshold)
    reached = np.isfinite(first)
    median = f"{np.median(np.where(reached, first, np.inf)):,.0f}" if reached.mean() > 0.5 else "never"
    cells = [name, f"{float(iqm(final)):.1f} [{low:.1f}, {high:.1f}]", f"{final.min():.1f}", better, median]
    cells.append(str(int(reached.sum())))
    if not was_busy(ddpg):
        speed, base = result["updates_per_second"], ddpg["updates_per_second"]
        cells.append("–" if was_busy(result) else f"{speed:,.0f} ({speed / base:.2f})")
    return cells


def tables(results: dict[str, dict[str, Any]], threshold: float) -> str:
    """Returns the two tables of a task in Markdown."""
    ddpg = results["DDPG"]
    there = [name for name in rungs() if name in results]
    ladder = [name for name in there if name == "DDPG" or name.startswith("+")]
    befores = dict(zip(ladder, [ladder[0], *ladder], strict=False))
    lines = []
    for first, against, names in (
        ("rung", "the rung before", ladder),
        ("only this change", "DDPG", [name for name in there if name not in ladder]),
    ):
        head = [first, "final return: IQM [95%]", "worst", f"P(better than {against}) [95%]"]
        head += [f"steps to {threshold:g}, median", "reached it"] + ["updates/s (of DDPG)"] * (not was_busy(ddpg))
        rows = [row(name, results[name], results[befores.get(name, "DDPG")], ddpg, threshold) for name in names]
        lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(x)} |" for x in rows)]
    dates = sorted({f"{results[name]['commit']} of {results[name]['date']}" for name in there})
    return "\n".join(
        [*lines[1:], "", f"{ddpg['machine']['cpu']}, {ddpg['machine']['cores']} cores; {', '.join(dates)}."]
    )


def main() -> None:
    """Runs what is missing, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        fill("family.md", name, tables(there, TASKS[name].threshold))


if __name__ == "__main__":
    main()
