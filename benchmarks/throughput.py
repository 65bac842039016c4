"""How fast agents learn, by their number: `python benchmarks/throughput.py`.

Measures updates per second of 1 to 1,024 agents for each of CASES, through the programs, the placement and the chunk
lengths of the command, in turns with the peak of the machine's multiply-adds; then the EXPERIMENTS. Replays are full
of transitions that the agents have gathered, as late in a long run. Writes `throughput_<device>.json` and `.png` in
`benchmarks/results`, and the tables in `benchmarks/README.md`. The whole takes about eight minutes on two cores;
`--only`, `--experiments` and `--limit` make it shorter. It runs on an accelerator unchanged.
"""

import argparse
import gc
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from peers import HERE, RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy

from ddpg_jax import devices, training
from ddpg_jax.assembly import make_hyperparameters, make_setup
from ddpg_jax.config import Config
from ddpg_jax.environment import make
from ddpg_jax.plan import make_plan, update_flops
from ddpg_jax.population import (
    EXAMPLE_HYPERPARAMETERS,
    Placement,
    Population,
    Programs,
    agent_keys,
    choose_group_size,
    compile_programs,
)
from ddpg_jax.presets import PRESETS
from ddpg_jax.training import Setup
from ddpg_jax.wave import CHUNK_SECONDS, MAX_CHUNK

CASES: dict[str, Config] = {
    "keras": PRESETS["keras"],
    "keras 64-64": PRESETS["keras"].replace(hidden_sizes=(64, 64)),
    "pendulum": PRESETS["pendulum"],
    "gist": PRESETS["gist"],
    "paper": PRESETS["paper"],
}
"""What is trained."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")  # Okabe & Ito's, told apart by colour-blind readers
MARKERS = "osD^v"

GATHERED = 200
"""Steps whose transitions fill the replays, over and over."""
LEAST_SECONDS = 0.4
"""A repeat has as many chunks as take so long."""


class Machine(NamedTuple):
    """What the measurements run on."""

    devices: tuple[jax.Device, ...]
    group_size: int | None
    """Agents that advance together on a device; None: the command's choice."""
    measure_peak: Callable[[], float]
    """10^9 floating-point operations a second, of all devices together."""
    peak_name: str


class Trainer(NamedTuple):
    """The compiled programs of a configuration."""

    config: Config
    setup: Setup
    programs: Programs
    compile_seconds: float


# Peak


def make_peak(used: Sequence[jax.Device], folder: Path) -> tuple[Callable[[], float], str]:
    """What measures the peak, and what it is: multiply-adds in C on CPUs with a compiler, else a matrix product."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if used[0].platform == "cpu" and compiler:
        program = folder / "fma_peak"
        command = [compiler, "-O3", "-march=native", str(HERE / "fma_peak.c"), "-o", str(program)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return partial(c_peak, program, len(used)), "float32 multiply-adds of all cores at once (C)"
    size = 2048 if used[0].platform == "cpu" else 8192
    matrices = [jax.device_put(jnp.ones((size, size), jnp.float32), device) for device in used]
    return partial(product_peak, matrices), f"a {size} x {size} matrix product (XLA)"


def c_peak(program: Path, num_cores: int) -> float:
    """The sum over cores that all run the C program at the same time."""
    cores = sorted(available_cores())[:num_cores]
    running = [subprocess.Popen([program, str(core)], stdout=subprocess.PIPE, text=True) for core in cores]
    return sum(float(process.communicate()[0]) for process in running)


def available_cores() -> set[int]:
    """Numbers of the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@jax.jit
def _product(matrix: jax.Array) -> jax.Array:
    return matrix @ matrix


def product_peak(matrices: Sequence[jax.Array]) -> float:
    """The best of several products, one on each device at the same time."""
    jax.block_until_ready([_product(matrix) for matrix in matrices])
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready([_product(matrix) for matrix in matrices])
        best = max(best, len(matrices) * 2 * matrices[0].shape[0] ** 3 / (time.perf_counter() - start) / 1e9)
    return best


def product_precision(device: jax.Device) -> str:
    """What a float32 matrix product really computes in, judged by its error."""
    a, b = np.random.default_rng(0).standard_normal((2, 256, 256), np.float32)
    found = np.asarray(jnp.matmul(jax.device_put(a, device), jax.device_put(b, device)), float)
    exact = a.astype(float) @ b.astype(float)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    name = "float32" if error < 1e-5 else "TF32" if error < 1e-3 else "bfloat16"
    return f"{name} (relative error {error:.0e})"


# Training


def compile_trainer(config: Config, machine: Machine) -> Trainer:
    """Compiles anew, without the cache of compiled programs."""
    jax.clear_caches()
    start = time.perf_counter()
    setup = make_setup(config, make(config.env_id))
    size = machine.group_size or choose_group_size(setup, machine.devices[0].platform)
    placement = Placement(machine.devices, size)
    programs = compile_programs(setup, placement, max_steps=MAX_CHUNK, num_starts=config.eval_episodes)
    return Trainer(config, setup, programs, time.perf_counter() - start)


@lru_cache
def trainer_of(config: Config, machine: Machine) -> Trainer:
    """The same, compiled once for all measurements."""
    return compile_trainer(config, machine)


def new_population(trainer: Trainer, num_agents: int, configs: Sequence[Config] = ()) -> Population:
    """Agents at the moment when they start to learn, with replays full of what they have gathered.

    `configs` are those of a sweep's points, which the agents share evenly; none given: all have the trainer's.
    """
    points = [make_hyperparameters(config) for config in configs or [trainer.config]]
    each = [points[agent * len(points) // num_agents] for agent in range(num_agents)]
    hyperparameters = jax.tree.map(lambda *values: np.asarray(values, np.float32), *each)
    population = Population(trainer.programs, agent_keys(0, np.arange(num_agents)), hyperparameters)
    gathered = min(GATHERED, trainer.setup.replay_capacity)
    # The counter of steps decides whether a step learns: these do not.
    before_learning = trainer.setup.first_update - 1 - gathered
    population.place([state._replace(step=jnp.int32(before_learning)) for state in population.states])
    population.train(gathered)
    for index, state in enumerate(population.states):
        rows = _repeat(state.replay.rows, gathered)
        replay = state.replay._replace(rows=rows, added=jnp.int32(rows.shape[1]))
        population.states[index] = state._replace(replay=replay)
    population.place(population.states)
    return population


@partial(jax.jit, static_argnums=1, donate_argnums=0)
def _repeat(rows: jax.Array, num: int) -> jax.Array:
    """Rows [N, capacity, W] that repeat their first `num`."""

    def write(i: jax.Array, rows: jax.Array) -> jax.Array:
        first = jnp.minimum(i * num, rows.shape[1] - num)
        return jax.lax.dynamic_update_slice_in_dim(rows, rows[:, :num], first, 1)

    return jax.lax.fori_loop(1, -(-rows.shape[1] // num), write, rows)


def seconds_of(population: Population, steps: int, chunks: int) -> float:
    """Seconds of so many chunks of steps, a chunk."""
    start = time.perf_counter()
    for _ in range(chunks):
        population.train(steps)
    return (time.perf_counter() - start) / chunks


def choose_chunk(population: Population, steps: int | None) -> tuple[int, int]:
    """Steps of a chunk, about as the command chooses them, and chunks of a repeat."""
    seconds_of(population, 2, 1)  # the first call is slow
    seconds = seconds_of(population, 2, 1) / 2
    length = steps or max(1, min(MAX_CHUNK, int(CHUNK_SECONDS / seconds)))
    return length, max(1, round(LEAST_SECONDS / (length * seconds)))


def flops_of(setup: Setup) -> int:
    """Floating-point operations of an update's matrix products."""
    state = jax.eval_shape(partial(training.init, setup=setup), jax.random.key(0), EXAMPLE_HYPERPARAMETERS)
    return update_flops(state.agent, setup.batch_size)


def updates_so_far(population: Population) -> int:
    """Updates of an agent, by its own count."""
    return int(population.states[0].agent.step[0])


# Agents against updates per second


def sweep(trainer: Trainer, machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Points of 1, 2, 4, … agents, as far as memory and the time limit allow."""
    started, points, stopped = time.perf_counter(), [], None
    placement = trainer.programs.placement
    for num_agents in options.agents:
        padded = placement.num_blocks(num_agents) * placement.block_size
        if len(make_plan(trainer.config, trainer.setup, placement, range(padded)).waves) > 1:
            stopped = f"{num_agents} agents do not fit into memory at once"
            break
        if time.perf_counter() - started > options.limit:
            stopped = f"the time limit of {options.limit:g} s was reached before {num_agents} agents"
            break
        points.append(measure_point(trainer, machine, num_agents, options))
        rate, share = points[-1]["updates_per_second"], points[-1]["share_of_peak"]
        print(f"  {num_agents:5} agents: {rate:10,.0f} updates/s, {share:.1%} of the peak", flush=True)
    return {
        "config": trainer.config.to_dict(),
        "group_size": placement.group_size,
        "num_devices": len(placement.devices),
        "flops_per_update": flops_of(trainer.setup),
        "compile_seconds": trainer.compile_seconds,
        "points": points,
        "stopped": stopped,
    }


def measure_point(trainer: Trainer, machine: Machine, num_agents: int, options: argparse.Namespace) -> dict[str, Any]:
    """Median updates per second of several repeats, between two measurements of the peak."""
    population = new_population(trainer, num_agents)
    steps, chunks = choose_chunk(population, options.steps)
    peaks, before = [machine.measure_peak()], updates_so_far(population)
    seconds = [seconds_of(population, steps, chunks) for _ in range(options.repeats)]
    updates = (updates_so_far(population) - before) / (chunks * options.repeats)
    peaks.append(machine.measure_peak())
    del population
    gc.collect()
    rate = num_agents * updates / statistics.median(seconds)
    peak = statistics.mean(peaks)
    return {
        "agents": num_agents,
        "steps_a_chunk": steps,
        "chunks_a_repeat": chunks,
        "updates_a_chunk": updates,
        "seconds_a_chunk": seconds,
        "updates_per_second": rate,
        "gflops_peak": peaks,
        "share_of_peak": rate * flops_of(trainer.setup) / peak / 1e9,
    }


# Experiments


def interleaved(populations: dict[str, Population], repeats: int, steps: int | None) -> dict[str, Any]:
    """Seconds of a step of all agents, in rounds with each population in turn; and steps of a chunk."""
    chunks = {name: choose_chunk(population, steps) for name, population in populations.items()}
    seconds: dict[str, list[float]] = {name: [] for name in populations}
    for _ in range(repeats):
        for name, population in populations.items():
            length, num = chunks[name]
            seconds[name].append(seconds_of(population, length, num) / length)
    return {"seconds_a_step": seconds, "steps_a_chunk": {name: chunk[0] for name, chunk in chunks.items()}}


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """The median of the ratios of neighbouring measurements."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def capacity(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Full replays of 10^6 and of 10^4 rows: how much longer does a step take?"""
    found = {}
    for name in ("keras 64-64", "gist"):
        populations = {}
        for rows in (10_000, 1_000_000):
            trainer = trainer_of(CASES[name].replace(replay_capacity=rows), machine)
            populations[str(rows)] = new_population(trainer, options.together)
        result = interleaved(populations, options.repeats, options.steps)
        found[name] = result | {"ratio": ratio(result["seconds_a_step"], "1000000", "10000")}
        print(f"  {name}: 10^6 rows take {found[name]['ratio']:.2f} times as long as 10^4", flush=True)
        del populations
        gc.collect()
    return found


def linearity(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """The time of a step, an agent, in populations of 2 to 1,000, against the first."""
    found = {}
    for name in ("keras 64-64", "keras"):
        trainer = trainer_of(CASES[name], machine)
        counts = [num for num in options.populations if fits(trainer, num + 100)]
        populations = {str(num): new_population(trainer, num) for num in counts}
        result = interleaved(populations, options.repeats, options.steps)
        seconds = {num: [s / int(num) for s in times] for num, times in result["seconds_a_step"].items()}
        ratios = {num: ratio(seconds, num, str(counts[0])) for num in seconds}
        found[name] = result | {"time_an_agent_against_the_first": ratios}
        words = ", ".join(f"{num}: {value:.2f}" for num, value in ratios.items())
        print(f"  {name}: a step's time an agent, against {counts[0]} agents: {words}", flush=True)
        del populations
        gc.collect()
    return found


def fits(trainer: Trainer, num_agents: int) -> bool:
    """Whether so many agents fit into memory."""
    return len(make_plan(trainer.config, trainer.setup, trainer.programs.placement, range(num_agents)).waves) == 1


def start_up(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to compile, to make the agents and to take the first step, by their number."""
    found: dict[str, Any] = {}
    for num_agents in (min(options.populations), max(options.populations)):
        trainer = compile_trainer(CASES["keras"], machine)
        start = time.perf_counter()
        hyperparameters = jax.tree.map(
            lambda x, n=num_agents: np.full(n, x, np.float32), make_hyperparameters(trainer.config)
        )
        population = Population(trainer.programs, agent_keys(0, np.arange(num_agents)), hyperparameters)
        jax.block_until_ready(population.states)
        made = time.perf_counter()
        population.train(1)
        found[str(num_agents)] = {
            "compile_seconds": trainer.compile_seconds,
            "init_seconds": made - start,
            "first_step_seconds": time.perf_counter() - made,
        }
        words = ", ".join(
            f"{key.removesuffix('_seconds')} {value:.2f} s" for key, value in found[str(num_agents)].items()
        )
        print(f"  {num_agents} agents: {words}", flush=True)
        del population
    return found


def replacement(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """How much longer a step of `gist` takes without replacement."""
    populations = {}
    for name, with_replacement in (("without", False), ("with", True)):
        trainer = trainer_of(CASES["gist"].replace(sample_with_replacement=with_replacement), machine)
        populations[name] = new_population(trainer, options.together)
    result = interleaved(populations, options.repeats, options.steps)
    found = result | {"ratio": ratio(result["seconds_a_step"], "without", "with")}
    print(f"  without replacement takes {found['ratio']:.2f} times as long as with", flush=True)
    return found


def sweep_cost(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """A grid of 12 points x 8 seeds of `pendulum` against as many agents without a sweep."""
    trainer = trainer_of(CASES["pendulum"], machine)
    grid = [
        trainer.config.replace(actor_lr=actor_lr, tau=tau)
        for actor_lr in (1e-4, 3e-4, 1e-3, 3e-3)
        for tau in (0.005, 0.01, 0.02)
    ]
    populations = {"grid": new_population(trainer, 96, grid), "alike": new_population(trainer, 96)}
    result = interleaved(populations, options.repeats, options.steps)
    found = result | {"ratio": ratio(result["seconds_a_step"], "grid", "alike")}
    print(f"  a grid of 12 points takes {found['ratio']:.2f} times as long as agents that are alike", flush=True)
    return found


def one_agent(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """One small agent as the command places it, against `--devices 1 --group-size 1`."""
    usual = trainer_of(CASES["pendulum"], machine)
    alone = compile_trainer(usual.config, machine._replace(devices=machine.devices[:1], group_size=1))
    populations = {"usual": new_population(usual, 1), "alone": new_population(alone, 1)}
    result = interleaved(populations, options.repeats, options.steps)
    found = result | {"ratio": ratio(result["seconds_a_step"], "usual", "alone")}
    print(
        f"  one agent as usual takes {found['ratio']:.2f} times as long as with --devices 1 --group-size 1", flush=True
    )
    return found


EXPERIMENTS: dict[str, Callable[[Machine, argparse.Namespace], dict[str, Any]]] = {
    "capacity": capacity,
    "linearity": linearity,
    "start_up": start_up,
    "replacement": replacement,
    "sweep_cost": sweep_cost,
    "one_agent": one_agent,
}


# Record


def draw(record: dict[str, Any], path: Path) -> None:
    """Updates a second, and the share of the peak, against the number of agents."""
    figure = Figure(figsize=(10, 4.4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, case), color, marker in zip(record["cases"].items(), COLORS, MARKERS, strict=False):
        agents = [point["agents"] for point in case["points"]]
        style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 5, "label": name}
        left.plot(agents, [point["updates_per_second"] for point in case["points"]], **style)
        right.plot(agents, [100 * point["share_of_peak"] for point in case["points"]], **style)
    left.set(ylabel="updates / s, all agents together", yscale="log")
    right.set(ylabel="matrix products' share of the peak / %", ylim=(0, None))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("number of agents")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(alpha=0.25)
    left.legend(frameon=False)
    right.set_title(f"peak: {record['peak']}", fontsize=9)
    left.set_title(f"{record['device']}, products in {record['matmul_precision']}", fontsize=9)
    figure.savefig(path)


def tables(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    counts = sorted({point["agents"] for case in record["cases"].values() for point in case["points"]})
    peaks = [peak for case in record["cases"].values() for point in case["points"] for peak in point["gflops_peak"]]
    lines = [
        f"**{record['device']}**, products in {record['matmul_precision']}. {record_line(record)}",
        "",
        f"Updates/s of all agents together, with the share of the peak: {record['peak']}, "
        f"median {statistics.median(peaks):,.0f} GFLOP/s."
        if peaks
        else "",
        "",
        f"| agents | {' | '.join(record['cases'])} |",
        f"|---|{'---|' * len(record['cases'])}",
    ]
    for count in counts:
        cells = []
        for case in record["cases"].values():
            point = next((point for point in case["points"] if point["agents"] == count), None)
            cells.append(f"{point['updates_per_second']:,.0f} ({point['share_of_peak']:.0%})" if point else "–")
        lines.append(f"| {count:,} | {' | '.join(cells)} |")
    for label, key, form in (
        ("compilation, s", "compile_seconds", "{:.1f}"),
        ("agents at a time on a device", "group_size", "{}"),
        ("MFLOP an update", "flops_per_update", "{:.1f}"),
    ):
        scale = 1e-6 if key == "flops_per_update" else 1
        cells = [form.format(case[key] * scale) for case in record["cases"].values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", *(f"- `{name}`: {case['stopped']}." for name, case in record["cases"].items() if case["stopped"])]
    return "\n".join([*lines, *experiment_lines(record["experiments"])])


def experiment_lines(found: dict[str, Any]) -> list[str]:
    """The experiments in words."""
    lines = []
    if "capacity" in found:
        words = ", ".join(f"`{name}` {result['ratio']:.2f}" for name, result in found["capacity"].items())
        lines.append(f"- A step with full replays of 10^6 rows against 10^4: {words} times.")
    for name, result in found.get("linearity", {}).items():
        (first, _), *ratios = result["time_an_agent_against_the_first"].items()
        words = ", ".join(f"{value:.2f} at {int(num):,}" for num, value in ratios)
        lines.append(f"- Time of a step an agent, against {first} agents, `{name}`: {words}.")
    if "start_up" in found:
        words = "; ".join(
            f"{int(num):,} agents {r['compile_seconds']:.1f} + {r['init_seconds']:.1f} + {r['first_step_seconds']:.2f}"
            for num, r in found["start_up"].items()
        )
        lines.append(f"- Seconds to compile `keras` + to make the agents + for their first step: {words}.")
    if "replacement" in found:
        lines.append(f"- `gist` without replacement against with: {found['replacement']['ratio']:.2f} times.")
    if "sweep_cost" in found:
        words = f"{found['sweep_cost']['ratio']:.2f} times"
        lines.append(f"- A grid of 12 points x 8 seeds of `pendulum` against 96 agents that are alike: {words}.")
    if "one_agent" in found:
        words = f"{found['one_agent']['ratio']:.2f} times"
        lines.append(f"- A step of one `pendulum` agent, against `--devices 1 --group-size 1`: {words}.")
    return lines


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="cases (default: all)")
    parser.add_argument("--experiments", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS),
                        help="experiments (default: all)")  # fmt: skip
    parser.add_argument("--agents", nargs="*", type=int, default=[2**i for i in range(11)],
                        help="numbers of agents (default: 1 2 4 … 1024)")  # fmt: skip
    parser.add_argument("--together", type=int, default=32, help="agents of the experiments (default: 32)")
    parser.add_argument("--populations", nargs="*", type=int, default=[2, 32, 1000],
                        help="numbers of agents whose times must be in proportion (default: 2 32 1000)")  # fmt: skip
    parser.add_argument("--steps", type=int, help="steps of a chunk, at most 250 (default: as the command's)")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: 3)")
    parser.add_argument("--limit", type=float, default=75.0, help="seconds of a case before it stops (default: 75)")
    parser.add_argument("--devices", type=int, help="devices (default: every core, or every accelerator)")
    parser.add_argument("--group-size", type=int, help="agents at a time on a device (default: the command's choice)")
    parser.add_argument("--matmul-precision", help='of matrix products, such as "float32" or "tensorfloat32"')
    parser.add_argument("--out", type=Path, help="the record, *.json (default: in benchmarks/results)")
    return parser.parse_args(arguments)


def measure(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the options ask for."""
    load, cases = [load_average()], {}
    for name in options.only:
        print(name, flush=True)
        trainer = trainer_of(CASES[name], machine)
        print(f"  compiled in {trainer.compile_seconds:.1f} s", flush=True)
        cases[name] = sweep(trainer, machine, options)
    found = {}
    for name in options.experiments:
        print(name, flush=True)
        found[name] = EXPERIMENTS[name](machine, options)
    return {
        "machine": describe_machine(),
        "device": f"{len(machine.devices)} x {machine.devices[0].device_kind}",
        "matmul_precision": product_precision(machine.devices[0]),
        "matmul_precision_option": options.matmul_precision,
        "versions": {"jax": jax.__version__},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "peak": machine.peak_name,
        "cases": cases,
        "experiments": found,
        "load_average": [*load, load_average()],
    }


def main() -> None:
    """Measures, writes and draws."""
    options = parse()
    devices.prepare(options.devices)
    jax.config.update("jax_enable_compilation_cache", False)  # how long compiling takes is asked for
    if options.matmul_precision:
        jax.config.update("jax_default_matmul_precision", options.matmul_precision)
    warn_if_busy()
    used = tuple(jax.devices()[: options.devices])
    with tempfile.TemporaryDirectory() as folder:
        measure_peak, peak_name = make_peak(used, Path(folder))
        record = measure(Machine(used, options.group_size, measure_peak, peak_name), options)
    slug = re.sub(r"[^a-z0-9]+", "_", used[0].device_kind.lower())
    path = options.out or RESULTS / f"throughput_{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    draw(record, path.with_suffix(".png"))
    print(tables(record))
    if options.out is None:
        records = [json.loads(found.read_text()) for found in sorted(RESULTS.glob("throughput_*.json"))]
        fill_readme("throughput", "\n\n".join(map(tables, records)))


if __name__ == "__main__":
    main()
