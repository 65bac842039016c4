"""Measures how fast agents learn, depending on their number: `python benchmarks/throughput.py`.

Measures updates per second of 1 to 1,024 agents for each of CASES, through the programs, the placement and the chunk
lengths of the command. The peak of the machine's multiply-adds is measured before and after each point. Then the
experiments of `experiments.py` follow. Replays are full of transitions that the agents have gathered, as they are late
in a long run. Writes `throughput_<device>.json` and `.png` in `benchmarks/results`, and the tables in
`benchmarks/README.md`. With `--limit 110` everything takes 14 minutes on two cores; `--only`, `--experiments` and a
smaller `--limit` make it shorter. It runs on an accelerator without changes.
"""

import argparse
import gc
import json
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from experiments import EXPERIMENTS, experiment_lines
from matplotlib.figure import Figure
from peak import make_peak, product_precision
from record import RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy
from trainers import (
    CASES,
    Machine,
    Trainer,
    choose_chunk,
    flops_of,
    new_population,
    seconds_of,
    trainer_of,
    updates_so_far,
)

from ddpg_jax.processes import devices
from ddpg_jax.runs.plan import plan_part

COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#000000",
)  # Okabe & Ito's, which colour-blind readers can distinguish
MARKERS = "osD^v"

# Agents against updates per second


def sweep(trainer: Trainer, machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Measures points of 1, 2, 4, … agents, as far as memory and the time limit allow."""
    started, points, stopped = time.perf_counter(), [], None
    placement = trainer.programs.placement
    for num_agents in options.agents:
        padded = placement.num_blocks(num_agents) * placement.block_size
        if len(plan_part(trainer.config, trainer.setup, [placement], range(padded)).waves) > 1:
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
    """Measures the median updates per second of several repeats, between two measurements of the peak."""
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


# Record


def draw(record: dict[str, Any], path: Path) -> None:
    """Draws updates per second, and the share of the peak, against the number of agents."""
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
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    right.set_title(f"peak: {record['peak']}", fontsize=9)
    left.set_title(f"{record['device']}, products in {record['matmul_precision']}", fontsize=9)
    figure.savefig(path)


def tables(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    counts = sorted({point["agents"] for case in record["cases"].values() for point in case["points"]})
    peaks = [peak for case in record["cases"].values() for point in case["points"] for peak in point["gflops_peak"]]
    lines = [
        f"**{record['device']}**, products in {record['matmul_precision']}. {record_line(record)}",
        "",
        f"Updates/s of all agents together, and in brackets the share of the peak. The peak was measured with "
        f"{record['peak']}; its median is {statistics.median(peaks):,.0f} GFLOP/s."
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
        ("agents at a time per device", "group_size", "{}"),
        ("MFLOP per update", "flops_per_update", "{:.1f}"),
    ):
        scale = 1e-6 if key == "flops_per_update" else 1
        cells = [form.format(case[key] * scale) for case in record["cases"].values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", *(f"- `{name}`: {case['stopped']}." for name, case in record["cases"].items() if case["stopped"])]
    return "\n".join([*lines, *experiment_lines(record["experiments"])])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="cases (default: all)")
    parser.add_argument("--experiments", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS),
                        help="experiments (default: all)")  # fmt: skip
    parser.add_argument("--agents", nargs="*", type=int, default=[2**i for i in range(11)],
                        help="numbers of agents (default: 1 2 4 … 1024)")  # fmt: skip
    parser.add_argument("--together", type=int, default=32, help="agents in the experiments (default: 32)")
    parser.add_argument("--populations", nargs="*", type=int, default=[2, 32, 1000],
                        help="numbers of agents whose times per agent are compared (default: 2 32 1000)")  # fmt: skip
    parser.add_argument("--steps", type=int, help="steps per chunk, at most 250 (default: as in the command)")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: 3)")
    parser.add_argument(
        "--limit", type=float, default=75.0, help="seconds after which a case starts no further point (default: 75)"
    )
    parser.add_argument("--devices", type=int, help="number of devices (default: every core, or every accelerator)")
    parser.add_argument("--group-size", type=int, help="agents at a time per device (default: the command's choice)")
    parser.add_argument("--matmul-precision", help='precision of matrix products, such as "float32" or "tensorfloat32"')
    parser.add_argument("--out", type=Path, help="where the record goes, *.json (default: in benchmarks/results)")
    return parser.parse_args(arguments)


def measure(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything that the options request; returns the record."""
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
    """Measures, prints, writes and draws."""
    options = parse()
    devices.prepare(options.devices)
    jax.config.update("jax_enable_compilation_cache", False)  # so that the compilation is measured
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
