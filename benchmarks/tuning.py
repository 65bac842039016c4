"""Compares ways to search for hyperparameters at equal agent steps: `python benchmarks/tuning.py [TASK …]`.

For each task and each of three root seeds it searches at random, with TPE, with TPE and pruning, and with
population-based training. Then it trains the defaults, what each search has found, and the schedule of the population
with 16 seeds that no search has used. Results that exist in `results/tuning/` are kept; the table of `docs/tuning.md`
is made from them. Pendulum takes about 25 minutes on two cores that nobody else uses.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import RESULTS, begin, fill, load_average

import ddpg_jax
from ddpg_jax import PRESETS, Config
from ddpg_jax.results.statistics import iqm, iqm_interval, paired_difference
from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.population import Row, follow, lineage
from ddpg_jax.search.space import parse_space
from ddpg_jax.training.progress import NullProgress

FOLDER = RESULTS / "tuning"
ROOTS = (1, 2, 3)
HELD_OUT = range(1000, 1016)
SPACE = {
    "actor_lr": "loguniform:1e-4,1e-2",
    "critic_lr": "loguniform:1e-4,1e-2",
    "tau": "loguniform:1e-3,1e-1",
}
METHODS: dict[str, dict[str, Any]] = {
    "random": {"method": "random", "pruner": "none"},
    "tpe": {"method": "tpe", "pruner": "none"},
    "tpe, pruned": {"method": "tpe", "pruner": "median"},
    "pbt": {"method": "pbt"},
}


class Task(NamedTuple):
    """What is searched."""

    config: Config
    trials: int = 16
    seeds: int = 2


TASKS = {
    # Half of the steps for which the preset was tuned, so that there is something to find.
    "pendulum": Task(PRESETS["pendulum"].replace(total_steps=3_000, eval_every=250)),
    "cartpole_swingup": Task(
        PRESETS["continuous"].replace(
            env_id="playground:CartpoleSwingup", hidden_sizes=(64, 64), batch_size=64, total_steps=15_000,
            eval_every=1_500,
        )
    ),
}  # fmt: skip


def path_of(task: str, root: int) -> Path:
    return FOLDER / f"{task}-root{root}.json"


def search(task: Task, root: int, given: dict[str, Any]) -> tuple[dict[str, Any], list[Row]]:
    """Returns what a search has found and needed, and the lineage of the best agent of a population."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        tuning = ddpg_jax.tune(task.config, SPACE, seed=root, trials=task.trials, seeds=task.seeds, batch=4,
                               final_seeds=1, out=Path(scratch) / "tune", progress=False, **given)  # fmt: skip
        seconds = time.perf_counter() - start
        agent_steps, path = task.trials * task.seeds * task.config.total_steps, lineage(tuning.population or [])
        if tuning.study is not None:
            agent_steps = task.seeds * sum(trial.user_attrs.get("env_steps", 0) for trial in tuning.study.trials)
    return {"values": dict(tuning.values), "agent_steps": agent_steps, "seconds": round(seconds, 1)}, path


def measure(name: str, root: int) -> None:
    """Searches in every way, trains what was found with the held-out seeds, and writes the record."""
    task, record, found = TASKS[name], begin(), dict[str, Any]()
    for method, given in METHODS.items():
        found[method], path = search(task, root, given)  # the last method's path is that of a population
        print(name, root, method, found[method], flush=True)
    configs = {"defaults": task.config} | {
        method: task.config.replace(**each["values"]) for method, each in found.items()
    }
    different = [*dict.fromkeys(configs.values())]
    result = ddpg_jax.train(different, seeds=HELD_OUT, seed=root, progress=False)
    returns = result.summary.per_agent_final_return.reshape(len(different), -1)
    final = {method: returns[different.index(config)].tolist() for method, config in configs.items()}
    options = TuneOptions(config=task.config, tune=tuple(f"{n}={text}" for n, text in SPACE.items()), seed=root)
    _, last = follow(path, parse_space(task.config, options.tune), options, HELD_OUT, NullProgress(1))
    final["pbt, schedule"] = last.tolist()
    record |= {"trials": task.trials, "seeds": task.seeds, "total_steps": task.config.total_steps, "searches": found,
               "final_returns": final}  # fmt: skip
    record["load_average"].append(load_average())
    FOLDER.mkdir(parents=True, exist_ok=True)
    path_of(name, root).write_text(json.dumps(record, indent=1) + "\n")


def table(name: str) -> str:
    """Returns the results of a task as a table in Markdown."""
    records = [json.loads(path_of(name, root).read_text()) for root in ROOTS if path_of(name, root).exists()]
    rows = ["| | agent steps | final return by root seed | all: IQM [95%] | pairs with the defaults |",
            "|---|---|---|---|---|"]  # fmt: skip
    final = {method: np.array([record["final_returns"][method] for record in records], float)
             for method in records[0]["final_returns"]}  # fmt: skip
    for method, returns in final.items():
        known = [record["searches"][method] for record in records if method in record["searches"]]
        steps = f"{np.mean([each['agent_steps'] for each in known]):,.0f}" if known else ""
        middles = ", ".join(f"{iqm(row[np.isfinite(row)]):.1f}" for row in returns)
        pooled = returns[np.isfinite(returns)]
        low, high = iqm_interval(pooled)
        cells = [method, steps, middles, f"{iqm(pooled):.1f} [{low:.1f}, {high:.1f}]", ""]
        if method != "defaults":
            middle, low, high = paired_difference(returns.ravel(), final["defaults"].ravel())
            cells[-1] = f"{middle:+.1f} [{low:.1f}, {high:.1f}]"
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["pendulum"], metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--roots", nargs="*", type=int, default=ROOTS, help="root seeds to measure now")
    given = parser.parse_args()
    for name in given.tasks:
        for root in given.roots:
            if not path_of(name, root).exists():
                measure(name, root)
        fill("tuning.md", name, table(name))


if __name__ == "__main__":
    main()
