"""Says where the time of a step goes on a CPU: `python benchmarks/step_profile.py`.

Trains one agent of each preset on one core under JAX's profiler, which records each *thunk*, a kernel of the compiled
program, by name. The program's text says what a name computes. The result goes to `results/step_profile.json` and into
the README. The profiler itself takes time for each thunk, so shares of small kernels are a little high.
It takes about two minutes.
"""

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
from hlo import Instruction, computations
from record import RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy
from trainers import CASES, Machine, compile_trainer, new_population

from ddpg_jax.processes import devices

STEPS = 200
"""Steps under the profiler."""

KINDS = {
    "matrix products": lambda each, source: each.opcode == "dot" or each.name.startswith("ynn_fusion"),
    "random numbers": lambda each, source: re.search(r"threefry|_uniform|_normal|_randint", source),
    "activations, biases, losses": lambda each, source: (
        "jit(update)" in source and re.search("Actor|Critic|jvp", source)
    ),
    "Adam and targets": lambda each, source: "jit(update)" in source,
    "copies": lambda each, source: each.opcode == "copy",
    "replay": lambda each, source: re.search(r"/gather|dynamic_update_slice", source),
}
"""What a thunk is for, by its instruction and by the JAX operation that it comes from; the first that holds."""
REST = "acting, environment, counters"


def kind_of(each: Instruction) -> str:
    """Returns what an instruction is for."""
    source = re.search(r'op_name="([^"]*)"', each.line)
    return next((kind for kind, holds in KINDS.items() if holds(each, source[1] if source else "")), REST)


def traced(folder: Path) -> list[dict[str, Any]]:
    """Returns the events that the profiler has left in a folder."""
    (file,) = folder.rglob("*.trace.json.gz")
    with gzip.open(file) as opened:
        return [event for event in json.load(opened)["traceEvents"] if event.get("ph") == "X" and "dur" in event]


def profile(name: str) -> dict[str, Any]:
    """Trains an agent, and returns the microseconds and the thunks of a step by kind."""
    trainer = compile_trainer(CASES[name], Machine((jax.devices()[0],), 1, lambda: 0.0, ""))
    agent = new_population(trainer, 1)
    agent.advance(STEPS)
    start = time.perf_counter()
    agent.advance(STEPS)
    plain = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            agent.advance(STEPS)
        events = traced(Path(folder))
    program: Any = trainer.programs.train
    parts = computations(program.as_text())
    instructions = {each.name: each for part in parts.values() for each in part}
    microseconds, thunks = Counter[str](), Counter[str]()
    for event in events:
        each = instructions.get(event["name"])
        # A loop's or call's own thunks are events, too; those of the loops that draw random numbers are not.
        if each and (each.opcode not in ("while", "call") or kind_of(each) == "random numbers"):
            microseconds[kind_of(each)] += event["dur"] / STEPS
            thunks[kind_of(each)] += 1
    return {
        "microseconds_of_a_step": plain / STEPS * 1e6,
        "microseconds": dict(microseconds),
        "thunks": {kind: number / STEPS for kind, number in thunks.items()},
    }


def table(record: dict[str, Any]) -> str:
    """Returns the table for `benchmarks/README.md`."""
    found = record["results"]
    lines = [
        f"One agent on one core: {record_line(record)}",
        "",
        "| share of the thunks' time (thunks per step) | " + " | ".join(f"`{name}`" for name in found) + " |",
        "|---|" + "---|" * len(found),
    ]
    for kind in (*KINDS, REST):
        cells = [
            f"{each['microseconds'].get(kind, 0) / sum(each['microseconds'].values()):.0%} "
            f"({each['thunks'].get(kind, 0):.0f})"
            for each in found.values()
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    times = [f"{each['microseconds_of_a_step']:,.0f} µs" for each in found.values()]
    return "\n".join([*lines, f"| a step without the profiler | {' | '.join(times)} |"])


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="these cases only")
    options = parser.parse_args()
    devices.prepare(1)
    warn_if_busy()
    load = load_average()
    results = {name: profile(name) for name in options.only}
    record = {
        "machine": describe_machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "load_average": [load, load_average()],
        "results": results,
    }
    (RESULTS / "step_profile.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    fill_readme("step-profile", table(record))


if __name__ == "__main__":
    main()
