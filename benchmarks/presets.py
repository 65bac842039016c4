"""Measures what each preset learns, and the effect of each correction to its source: `python benchmarks/presets.py`.

Runs the command once for each entry of RUNS, except those whose results exist already (`--again` runs all). Keeps
`metrics.csv` and `summary.json` in `benchmarks/results/presets/`. From these it draws `docs/images/preset_*.png`, and
prints the tables of `docs/presets.md`, `docs/environments.md` and `docs/performance.md`. All runs together take
about two hours on two cores.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.results.plots import BLUE, GREEN, ORANGE
from ddpg_jax.results.statistics import iqm, iqm_interval, probability_of_improvement

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "presets"
IMAGES = HERE.parent / "docs" / "images"

RUNS: dict[str, list[str]] = {
    "pendulum-root1": ["--preset", "pendulum", "--seed", "1"],
    "pendulum-root2": ["--preset", "pendulum", "--seed", "2"],
    "pendulum-root3": ["--preset", "pendulum", "--seed", "3"],
    "pendulum-1024": ["--preset", "pendulum", "--seed", "8", "--seeds", "1024"],
    "gist": ["--preset", "gist", "--seed", "1"],
    "gist_corrected": ["--preset", "gist_corrected", "--seed", "1"],
    "gist-bootstrapped": ["--preset", "gist", "--no-time-limit-terminal", "--seed", "1"],
    "keras-root1": ["--preset", "keras", "--seed", "1"],
    "keras-root2": ["--preset", "keras", "--seed", "2"],
    "keras-textbook_noise": ["--preset", "keras", "--noise-dt", "1", "--total-steps", "10000", "--seed", "1"],
    "keras-terminal": ["--preset", "keras", "--time-limit-terminal", "--total-steps", "10000", "--seed", "1"],
    "paper": ["--preset", "paper", "--total-steps", "12000", "--seed", "1"],
    "paper-long": ["--preset", "paper", "--total-steps", "300000", "--seed", "1", "--seeds", "8"],
    "pendulum-bfloat16-root1": ["--preset", "pendulum", "--seed", "1", "--matmul-dtype", "bfloat16"],
    "pendulum-bfloat16-root2": ["--preset", "pendulum", "--seed", "2", "--matmul-dtype", "bfloat16"],
    "keras-bfloat16": ["--preset", "keras", "--seed", "1", "--matmul-dtype", "bfloat16"],
    "td3": ["--preset", "td3"],
    "d4pg": ["--preset", "d4pg"],
    "mountain_car-root1": ["--preset", "mountain_car", "--seed", "1"],
    "mountain_car-root2": ["--preset", "mountain_car", "--seed", "2"],
    "mountain_car-root3": ["--preset", "mountain_car", "--seed", "3"],
}
"""The flags of each result, after `--seeds 32`: a number of agents among them replaces this one."""

CORRECTIONS: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("tutorial: bootstrap at the time limit instead of counting it as terminal", "keras-terminal", "keras-root1",
     (4_000, 10_000)),
    ("tutorial: textbook noise (dt 1) instead of its slow noise (dt 0.01)", "keras-root1", "keras-textbook_noise",
     (4_000, 10_000)),
    ("gist: bootstrap at the time limit only", "gist", "gist-bootstrapped", (10_000, 40_000)),
    ("gist: all three corrections (`gist_corrected`)", "gist", "gist_corrected", (10_000, 40_000)),
)  # fmt: skip
"""A correction, the results without and with it, and the steps at which they are compared."""

ROUNDING: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("`pendulum`, root seed 1", "pendulum-root1", "pendulum-bfloat16-root1", (2_000, 6_000)),
    ("`pendulum`, root seed 2", "pendulum-root2", "pendulum-bfloat16-root2", (2_000, 6_000)),
    ("`keras`, root seed 1", "keras-root1", "keras-bfloat16", (4_000, 20_000)),
)
"""A run, its results with products in float32 and in bfloat16, and the steps at which they are compared."""

COMPARISONS: dict[str, tuple[str, ...]] = {
    "preset_pendulum": ("pendulum-root1", "pendulum-root2", "pendulum-root3"),
    "preset_keras": ("keras-root1", "keras-textbook_noise", "keras-terminal"),
    "preset_gist": ("gist", "gist_corrected", "gist-bootstrapped"),
    "preset_paper": ("paper",),
}
"""The results in each figure."""


def run(name: str, flags: list[str], seeds: int) -> None:
    """Trains, and keeps the results."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "ddpg_jax.run", "--seeds", str(seeds), *flags, "--out", str(out)]
        subprocess.run(command, check=True)
        keep(name, flags, out)


def keep(name: str, flags: list[str], out: Path) -> None:
    """Copies what is needed of a run folder."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.copy(out / "metrics.csv", RESULTS / f"{name}.csv")
    started = json.loads((out / "config.json").read_text())
    summary = json.loads((out / "summary.json").read_text())
    summary |= {"flags": flags} | {key: started[key] for key in ("group_size", "versions", "commit")}
    (RESULTS / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")


def learning_curve(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the environment steps [E] and the greedy returns [E, N] of a result."""
    table = np.genfromtxt(RESULTS / f"{name}.csv", delimiter=",", names=True)
    steps = np.unique(table["env_steps"])
    return steps, np.stack([table["eval_return"][table["env_steps"] == step] for step in steps])


def draw(figure_name: str, names: tuple[str, ...]) -> None:
    """Draws the interquartile mean and its 95% interval of each result against the environment steps."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, color in zip(names, (BLUE, ORANGE, GREEN), strict=False):
        steps, returns = learning_curve(name)
        axes.fill_between(steps, *np.array([iqm_interval(row) for row in returns]).T, color=color, alpha=0.25)
        axes.plot(steps, iqm(returns, axis=1), color=color, linewidth=2, label=name)
    optimum = np.asarray(make("Pendulum-v1").optimal_returns)[: Config().eval_episodes]
    axes.axhline(float(np.mean(optimum)), color="black", linestyle="--", linewidth=1, label="optimum")
    axes.set(xlabel="environment steps of each agent", ylabel="greedy return: IQM of 32 agents, 95% interval")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{figure_name}.png")


def draw_shortfalls(figure_name: str, name: str) -> None:
    """Draws how many agents of a result fall how far short of the optimum, their number on a logarithmic axis."""
    summary = json.loads((RESULTS / f"{name}.json").read_text())
    shortfalls, solved = np.array(summary["per_agent_final_shortfall"]), summary["solved_shortfall"]
    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    edges = np.arange(np.floor(shortfalls.min()), np.ceil(max(shortfalls.max(), solved)) + 0.5, 0.5)
    axes.hist(shortfalls, bins=edges.tolist(), color=BLUE)
    axes.axvline(solved, color="black", linestyle="--", linewidth=1, label=f"solved: at most {solved:g}")
    axes.set(
        yscale="log",
        xlabel="mean return below the optimum's, 512 start states",
        ylabel=f"agents of {len(shortfalls):,}",
    )
    axes.grid(alpha=0.25)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper center", frameon=False)
    figure.savefig(IMAGES / f"{figure_name}.png")


def at(name: str, env_steps: int) -> np.ndarray:
    """Returns the greedy returns [N] of a result after that many environment steps."""
    steps, returns = learning_curve(name)
    return returns[list(steps).index(env_steps)]


def correction_rows(words: str, without: str, corrected: str, at_steps: tuple[int, ...]) -> list[str]:
    """Returns the rows of a correction; the last has the probability that an agent with it beats one without it."""
    lines = []
    for env_steps in at_steps:
        values = [at(without, env_steps), at(corrected, env_steps)]
        cells = ["{:.1f} [{:.1f}, {:.1f}]".format(float(iqm(each)), *iqm_interval(each)) for each in values]
        better = "{:.2f} [{:.2f}, {:.2f}]".format(*probability_of_improvement(values[1], values[0]))
        last = env_steps == at_steps[-1]
        lines.append(f"| {words if env_steps == at_steps[0] else ''} | {env_steps:,} | {cells[0]} | {cells[1]} "
                     f"| {better if last else ''} |")  # fmt: skip
    return lines


def environment_row(name: str, summary: dict[str, Any]) -> str:
    """Returns a row of the table of other environments: the first evaluation of training, and the final one."""
    final = summary["final_return"]
    low, high = final["iqm_ci95"]
    steps, returns = learning_curve(name)
    return (
        f"| {summary['env_id']} | `{summary['preset']}` | {summary['num_agents']} x {summary['env_steps_per_agent']:,} "
        f"| {float(iqm(returns[0])):.1f} at {int(steps[0]):,} | {final['iqm']:.1f} [{low:.1f}, {high:.1f}] "
        f"| {final['worst']:.1f} | {final['best']:.1f} |"
    )


def row(name: str, summary: dict[str, Any]) -> str:
    """Returns a row of the table of results."""
    final, shortfall, last = summary["final_return"], summary["final_shortfall"], summary["train_return_last_40"]
    low, high = final["iqm_ci95"]
    returns = np.asarray(summary["per_agent_final_return"])
    return (
        f"| {name} | {summary['num_agents']} x {summary['env_steps_per_agent']:,} "
        f"| {final['iqm']:.1f} [{low:.1f}, {high:.1f}] | {final['mean']:.1f} | {final['worst']:.1f} "
        f"| {shortfall['iqm']:.1f} | {shortfall['num_solved']} | {np.sum(returns > -200)} | {last['mean']:.1f} |"
    )


def main() -> None:
    """Runs the presets whose results are missing, then draws the figures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="run all presets again")
    parser.add_argument("--seeds", type=int, default=32, help="agents of each run (default: 32)")
    parser.add_argument("--only", nargs="*", choices=list(RUNS), help="run only these")
    options = parser.parse_args()
    for name, flags in RUNS.items():
        wanted = options.only is None or name in options.only
        if wanted and (options.again or not (RESULTS / f"{name}.json").exists()):
            run(name, flags, options.seeds)
    there = [name for name in RUNS if (RESULTS / f"{name}.json").exists()]
    print("| result | agents x steps | final return: IQM [95%] | mean | worst | shortfall: IQM | solved "
          "| above -200 | last 40 training returns |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    summaries = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in there}
    for name, summary in summaries.items():
        if "final_shortfall" in summary:
            print(row(name, summary))
    for head, pairs in (("correction | steps | without | with", CORRECTIONS),
                        ("run | steps | float32 | bfloat16", ROUNDING)):  # fmt: skip
        print(f"\n| {head} | P [95%] |\n|---|---|---|---|---|")
        for words, without, corrected, at_steps in pairs:
            if without in there and corrected in there:
                print(*correction_rows(words, without, corrected, at_steps), sep="\n")
    print(
        "\n| environment | preset | agents x steps | first evaluation: IQM | final return: IQM [95%] | worst | best |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, summary in summaries.items():
        if "final_shortfall" not in summary:
            print(environment_row(name, summary))
    if "pendulum-1024" in there:
        draw_shortfalls("preset_pendulum_1024", "pendulum-1024")
    for figure_name, names in COMPARISONS.items():
        if all(name in there for name in names):
            draw(figure_name, names)


if __name__ == "__main__":
    main()
