"""Measures the effect of the options that the programs give to XLA's compiler on a CPU, and of XLA's threads.

`python benchmarks/compiler_options.py` starts two processes for each preset: one compiles as the command does, the
other with XLA's own defaults. They take turns, each training one chunk at a time. The gain is the median of the ratios
of neighbouring chunks. The trained agents of both are compared byte for byte. Then it does the same on one device, with
one thread for it, and with a thread for each core as XLA has. The result goes to `results/compiler_options.json` and
into the README. The benchmark takes about eight minutes on two cores.

`--only products` compares Eigen's products with XLA's own choice, in all presets, whether the command would choose them
or not. These change the last digits. The result goes to `results/compiler_products.json` and into the README.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from record import RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy
from trainers import Machine, compile_trainer, new_population

from ddpg_jax.environments.registry import make
from ddpg_jax.population import compiler
from ddpg_jax.population.assembly import make_setup
from ddpg_jax.population.blocks import Population
from ddpg_jax.population.programs import train_state_shapes
from ddpg_jax.presets import PRESETS
from ddpg_jax.processes import devices
from ddpg_jax.runs.course import MAX_CHUNK

ONE_THREAD = {"PJRT_NPROC": "1"}
"""XLA itself has a thread for each core."""
PRESETS_COMPARED = ("keras", "paper", "pendulum", "gist")
ALL_PRESETS = tuple(name for name in PRESETS if name != "gist_corrected")
"""One of the two gists: they differ only in their noise."""
TURN_SECONDS = 0.25
"""Approximate length of a turn."""


class TrainingProcess:
    """A process that trains on request."""

    def __init__(self, *flags: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def ask(self, line: str) -> str:
        """Sends a line; returns the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Ends the process."""
        self._process.communicate()


def serve(preset: str, num_devices: int | None, *, with_options: bool, products: str) -> None:
    """Runs in a training process: trains as many steps as each line of its input says, and prints the seconds.

    For the line "digest" it prints the digest of the agents instead.
    """
    devices.prepare(num_devices)
    jax.config.update("jax_enable_compilation_cache", False)
    if not with_options:
        compiler.CPU_OPTIONS.clear()
    if products == "ynnpack":
        compiler.EIGEN_PRODUCTS.clear()
    elif products == "eigen":
        compiler.CPU_OPTIONS.update(compiler.EIGEN_PRODUCTS)
    machine = Machine(tuple(jax.devices()), None, lambda: 0.0, "")
    trainer = compile_trainer(PRESETS[preset], machine)
    agents = new_population(trainer, 2 * trainer.programs.placement.block_size)
    for line in sys.stdin:
        if line.strip() == "digest":
            print(digest(agents), flush=True)
            continue
        start = time.perf_counter()
        agents.advance(int(line))
        print(time.perf_counter() - start, flush=True)


def digest(agents: Population) -> str:
    """Returns a hash of all parameters, targets and Adam's moments."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(agents.agents(lambda state: state)):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def compare_options(preset: str, rounds: int) -> dict[str, Any]:
    """Compares the compiler's options with XLA's own, on all devices."""
    flags = "--preset", preset
    return compare(
        TrainingProcess(*flags, environment={}), TrainingProcess(*flags, "--without", environment={}), rounds
    )


def compare_products(preset: str, rounds: int) -> dict[str, Any]:
    """Compares Eigen's products with XLA's own choice."""
    flags = "--preset", preset, "--products"
    found = compare(
        TrainingProcess(*flags, "eigen", environment={}), TrainingProcess(*flags, "ynnpack", environment={}), rounds
    )
    shapes = train_state_shapes(make_setup(PRESETS[preset], make(PRESETS[preset].env_id))).agent
    params = shapes.actor["params"], shapes.critic["params"]
    return found | {"chosen": compiler.cpu_options(params) != compiler.CPU_OPTIONS}


def compare_threads(preset: str, rounds: int) -> dict[str, Any]:
    """Compares one thread for one device with a thread for each core."""
    flags = "--preset", preset, "--devices", "1"
    return compare(TrainingProcess(*flags, environment=ONE_THREAD), TrainingProcess(*flags, environment={}), rounds)


def compare(with_: TrainingProcess, without: TrainingProcess, rounds: int) -> dict[str, Any]:
    """Trains with and without something in turns; which of the two goes first alternates."""
    processes = {"with": with_, "without": without}
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for process in processes.values():
        process.ask("4")  # the first call is slow
    pace = max(float(process.ask("4")) for process in processes.values()) / 4
    steps = max(1, min(MAX_CHUNK, round(TURN_SECONDS / pace)))
    for number in range(rounds):
        for name in sorted(processes, reverse=bool(number % 2)):
            seconds[name].append(float(processes[name].ask(str(steps))))
    digests = [process.ask("digest") for process in processes.values()]
    for process in processes.values():
        process.end()
    gains = [without / with_ for without, with_ in zip(seconds["without"], seconds["with"], strict=True)]
    return {
        "steps_a_chunk": steps,
        "seconds": seconds,
        "gain": statistics.median(gains),
        "quartiles": [float(q) for q in np.percentile(gains, [25, 75])],
        "equal": digests[0] == digests[1],
    }


def table(record: dict[str, Any]) -> str:
    """Returns the table of the gains for `benchmarks/README.md`."""
    lines = [
        f"Median of {record['rounds']} ratios of neighbouring chunks (quartiles): {record_line(record)}",
        "",
        "| preset | speed with the options, relative to without | same bytes "
        "| speed on one device with one thread, relative to one for each core | same bytes |",
        "|---|---|---|---|---|",
    ]
    for preset in PRESETS_COMPARED:
        cells = [cell for name in ("results", "threads") for cell in _cells(record[name][preset])]
        lines.append(f"| `{preset}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def products_table(record: dict[str, Any]) -> str:
    """Returns the table of what Eigen's products gain for `benchmarks/README.md`."""
    found = record["results"]
    gains = [_cells(each)[0] for each in found.values()]
    lines = [
        f"Median of {record['rounds']} ratios of neighbouring chunks (quartiles): {record_line(record)}",
        "",
        f"| | {' | '.join(f'`{preset}`' for preset in found)} |",
        f"|---|{'---|' * len(found)}",
        f"| speed with Eigen's products, relative to XLA's choice | {' | '.join(gains)} |",
        f"| chosen by the package | {' | '.join('yes' if each['chosen'] else 'no' for each in found.values())} |",
    ]
    return "\n".join(lines)


def _cells(found: dict[str, Any]) -> list[str]:
    low, high = found["quartiles"]
    return [f"{found['gain']:.3f} ({low:.3f}–{high:.3f})", "yes" if found["equal"] else "NO"]


def main() -> int:
    """Measures, prints and writes; or, with --preset, runs as a training process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="pairs of chunks (default: 60)")
    parser.add_argument("--preset", choices=list(PRESETS), help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--products", choices=["eigen", "ynnpack", "chosen"], default="chosen", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["options", "products"], default="options", help="what to compare")
    parser.add_argument("--out", type=Path, help="where the record goes (default: in results/)")
    options = parser.parse_args()
    if options.preset:
        serve(options.preset, options.devices, with_options=not options.without, products=options.products)
        return 0
    warn_if_busy()
    load = [load_average()]
    record: dict[str, Any] = {
        "machine": describe_machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": options.rounds,
    }
    if options.only == "products":
        record["results"] = {preset: compare_products(preset, options.rounds) for preset in ALL_PRESETS}
    else:
        record["results"] = {preset: compare_options(preset, options.rounds) for preset in PRESETS_COMPARED}
        record["threads"] = {preset: compare_threads(preset, options.rounds) for preset in PRESETS_COMPARED}
    record["load_average"] = [*load, load_average()]
    shown = products_table(record) if options.only == "products" else table(record)
    print(shown)
    (options.out or RESULTS / f"compiler_{options.only}.json").write_text(json.dumps(record, indent=1) + "\n")
    if options.out is None:
        fill_readme(f"compiler-{options.only}", shown)
    return int(options.only == "options" and not all(found["equal"] for found in record["results"].values()))


if __name__ == "__main__":
    sys.exit(main())
