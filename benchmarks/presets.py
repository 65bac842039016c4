"""Measures what each preset learns, and the effect of each correction of its source: `python benchmarks/presets.py`.

Trains the agents of each entry of RUNS whose results are missing (`--again` trains all). Keeps `metrics.csv` and
`summary.json` in `results/presets/`. From these it draws `docs/images/preset_*.png`, and writes the tables of
`docs/presets.md`, `docs/environments.md` and `docs/performance.md`. All runs take about two hours on two cores.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from record import DOCS, RESULTS, commit, fill, make_parser, markdown

import ddpg_jax
from ddpg_jax import PRESETS, Config
from ddpg_jax.results.statistics import iqm, iqm_interval, probability_of_improvement

FOLDER = RESULTS / "presets"
COLORS = ("#0072B2", "#D55E00", "#009E73")
"""Of Okabe and Ito, which colour-blind readers can distinguish."""


class Run(NamedTuple):
    """Agents to train."""

    config: Config
    seed: int = 1
    num_seeds: int = 32


BFLOAT16 = {"matmul_dtype": "bfloat16"}
RUNS: dict[str, Run] = {
    "pendulum-root1": Run(PRESETS["pendulum"]),
    "pendulum-root2": Run(PRESETS["pendulum"], 2),
    "pendulum-root3": Run(PRESETS["pendulum"], 3),
    "pendulum-1024": Run(PRESETS["pendulum"], 8, 1024),
    "gist": Run(PRESETS["gist"]),
    "gist_corrected": Run(PRESETS["gist_corrected"]),
    "gist-bootstrapped": Run(PRESETS["gist"].replace(time_limit_terminal=False)),
    "keras-root1": Run(PRESETS["keras"]),
    "keras-root2": Run(PRESETS["keras"], 2),
    "keras-textbook_noise": Run(PRESETS["keras"].replace(noise_dt=1.0, total_steps=10_000)),
    "keras-terminal": Run(PRESETS["keras"].replace(time_limit_terminal=True, total_steps=10_000)),
    "paper": Run(PRESETS["paper"].replace(total_steps=12_000)),
    "paper-long": Run(PRESETS["paper"].replace(total_steps=300_000), 1, 8),
    "td3": Run(PRESETS["td3"], 0),
    "d4pg": Run(PRESETS["d4pg"], 0),
    "pendulum-bfloat16-root1": Run(PRESETS["pendulum"].replace(**BFLOAT16)),
    "pendulum-bfloat16-root2": Run(PRESETS["pendulum"].replace(**BFLOAT16), 2),
    "keras-bfloat16": Run(PRESETS["keras"].replace(**BFLOAT16)),
    "mountain_car-root1": Run(PRESETS["mountain_car"]),
    "mountain_car-root2": Run(PRESETS["mountain_car"], 2),
    "mountain_car-root3": Run(PRESETS["mountain_car"], 3),
}

Pair = tuple[str, str, str, tuple[int, ...]]
"""What is changed, the results without and with it, and the steps at which they are compared."""
CORRECTIONS: tuple[Pair, ...] = (
    ("tutorial: bootstrap at the time limit instead of a terminal state", "keras-terminal", "keras-root1",
     (4_000, 10_000)),
    ("tutorial: textbook noise (dt 1) instead of its slow noise (dt 0.01)", "keras-root1", "keras-textbook_noise",
     (4_000, 10_000)),
    ("gist: bootstrap at the time limit only", "gist", "gist-bootstrapped", (10_000, 40_000)),
    ("gist: all three corrections (`gist_corrected`)", "gist", "gist_corrected", (10_000, 40_000)),
)  # fmt: skip
ROUNDING: tuple[Pair, ...] = (
    ("`pendulum`, root seed 1", "pendulum-root1", "pendulum-bfloat16-root1", (6_000,)),
    ("`pendulum`, root seed 2", "pendulum-root2", "pendulum-bfloat16-root2", (6_000,)),
    ("`keras`, root seed 1", "keras-root1", "keras-bfloat16", (20_000,)),
)

FIGURES: dict[str, tuple[str, ...]] = {
    "preset_keras": ("keras-root1", "keras-textbook_noise", "keras-terminal"),
    "preset_gist": ("gist", "gist_corrected", "gist-bootstrapped"),
}
"""The results in each figure."""


def train(name: str, run: Run) -> None:
    """Trains, and keeps the results."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        ddpg_jax.train(run.config, seeds=run.num_seeds, seed=run.seed, out=folder)
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "metrics.csv", FOLDER / f"{name}.csv")
        summary = json.loads((folder / "summary.json").read_text()) | {"commit": commit()}
    (FOLDER / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")


def summary_of(name: str) -> dict[str, Any]:
    """Returns the summary of a result."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def learning_curve(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the environment steps [E] and the greedy returns [E, N] of a result."""
    table = np.genfromtxt(FOLDER / f"{name}.csv", delimiter=",", names=True)
    steps = np.unique(table["env_steps"])
    return steps, np.stack([table["eval_return"][table["env_steps"] == step] for step in steps])


def draw(figure_name: str, names: tuple[str, ...]) -> None:
    """Draws the interquartile mean and its 95% interval of each result against the environment steps."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, color in zip(names, COLORS, strict=False):
        steps, returns = learning_curve(name)
        axes.fill_between(steps, *np.array([iqm_interval(row) for row in returns]).T, color=color, alpha=0.25)
        axes.plot(steps, iqm(returns, axis=1), color=color, linewidth=2, label=name)
    axes.axhline(summary_of(names[0])["eval_optimum"], color="black", linestyle="--", linewidth=1, label="optimum")
    axes.set(xlabel="environment steps of each agent", ylabel="greedy return: IQM of 32 agents, 95% interval")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(DOCS / "images" / f"{figure_name}.png")


def draw_shortfalls(figure_name: str, name: str) -> None:
    """Draws how many agents of a result fall how far short of the optimum, their number on a logarithmic axis."""
    summary = summary_of(name)
    shortfalls, solved = np.array(summary["per_agent_final_shortfall"]), summary["solved_shortfall"]
    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    edges = np.arange(np.floor(shortfalls.min()), np.ceil(max(shortfalls.max(), solved)) + 0.5, 0.5)
    axes.hist(shortfalls, bins=edges.tolist(), color=COLORS[0])
    axes.axvline(solved, color="black", linestyle="--", linewidth=1, label=f"solved: at most {solved:g}")
    label = "mean return below the optimum's, 512 start states"
    axes.set(yscale="log", xlabel=label, ylabel=f"agents of {len(shortfalls):,}")
    axes.grid(alpha=0.25)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper center", frameon=False)
    figure.savefig(DOCS / "images" / f"{figure_name}.png")


def with_interval(returns: np.ndarray) -> str:
    """Formats the interquartile mean of returns [N] and its interval."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(float(iqm(returns)), *iqm_interval(returns))


def comparison(names: tuple[str, str, str], pairs: tuple[Pair, ...]) -> str:
    """Returns a table of two results at some steps; the last row of a pair has P(the second is better)."""
    rows = []
    for words, without, changed, at_steps in pairs:
        for env_steps in at_steps:
            curves = [learning_curve(name) for name in (without, changed)]
            first, second = (returns[list(steps).index(env_steps)] for steps, returns in curves)
            better = "{:.2f} [{:.2f}, {:.2f}]".format(*probability_of_improvement(second, first))
            rows.append([words if env_steps == at_steps[0] else "", f"{env_steps:,}", with_interval(first),
                         with_interval(second), better if env_steps == at_steps[-1] else ""])  # fmt: skip
    return markdown([names[0], "steps", *names[1:], "P [95%]"], rows)


def row(name: str) -> list[str]:
    """Returns the row of a result in the table of presets or of MountainCarContinuous."""
    summary = summary_of(name)
    returns = np.array(summary["per_agent_final_return"], float)
    cells = [name, f"{summary['num_agents']:,} x {summary['env_steps_per_agent']:,}", with_interval(returns)]
    cells += [f"{returns.min():.1f}"]
    if shortfall := summary.get("final_shortfall"):
        last = f"{summary['train_return_last_40']['mean']:.1f}"
        return [*cells, f"{shortfall['iqm']:.1f}", f"{shortfall['num_solved']:,}", last]
    return [*cells, f"{returns.max():.1f}"]


def main() -> None:
    """Trains what is missing, then draws the figures and writes the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--again", action="store_true", help="train all again")
    parser.add_argument("--only", nargs="*", choices=list(RUNS), default=list(RUNS), help="train only these")
    options = parser.parse_args()
    ddpg_jax.use_all_cores()
    for name in options.only:
        if options.again or not (FOLDER / f"{name}.json").exists():
            train(name, RUNS[name])
    with_optimum = [name for name in RUNS if "final_shortfall" in summary_of(name)]
    head = ("result", "agents x steps", "final return: IQM [95%]", "worst")
    columns = (*head, "shortfall: IQM", "solved", "last 40 training returns")
    fill("presets.md", "results", markdown(columns, [row(x) for x in with_optimum if "bfloat16" not in x]))
    fill("environments.md", "mountain-car", markdown((*head, "best"), [row(x) for x in RUNS if x not in with_optimum]))
    fill("presets.md", "corrections", comparison(("correction", "without", "with"), CORRECTIONS))
    fill("performance.md", "rounding", comparison(("run", "float32", "bfloat16"), ROUNDING))
    draw_shortfalls("preset_pendulum_1024", "pendulum-1024")
    for figure_name, names in FIGURES.items():
        draw(figure_name, names)


if __name__ == "__main__":
    main()
