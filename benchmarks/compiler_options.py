"""What the options gain that the command gives to XLA's compiler on a CPU: the same training with and without them.

`python benchmarks/compiler_options.py` keeps two processes for each preset, one that compiles as the command does and
one that leaves XLA as it comes. They train in turns, a chunk each; the gain is the median of the ratios of neighbouring
chunks. What both have trained is compared byte for byte. The result goes to `results/compiler_options.json`, and into
the README; it takes about four minutes on two cores.
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

from ddpg_jax.population import programs
from ddpg_jax.population.blocks import Population
from ddpg_jax.presets import PRESETS
from ddpg_jax.processes import devices
from ddpg_jax.runs.course import MAX_CHUNK

WITHOUT = {"XLA_FLAGS": devices.LOOP_OPTION.rpartition("=")[0] + "=1024"}
"""XLA's own limit: it comes after the command's, and so counts."""
TURN_SECONDS = 0.5
"""About how long each is at it, in its turn."""


class Worker:
    """A process that trains when it is told to."""

    def __init__(self, preset: str, *, with_options: bool) -> None:
        flags = ["--preset", preset, *([] if with_options else ["--without"])]
        environment = os.environ | ({} if with_options else WITHOUT)
        self._process = subprocess.Popen(
            [sys.executable, __file__, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, line: str) -> str:
        """What it answers to a line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Lets it go."""
        self._process.communicate()


def serve(preset: str, *, with_options: bool) -> None:
    """A worker's side: trains so many steps for each number that it reads, and answers the seconds; or the digest."""
    devices.prepare(None)
    jax.config.update("jax_enable_compilation_cache", False)
    if not with_options:
        programs.CPU_OPTIONS.clear()
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
    """Of the bytes of all parameters, targets and moments."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(agents.agents(lambda state: state)):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def compare(preset: str, rounds: int) -> dict[str, Any]:
    """Both in turns, which begin with the one and with the other."""
    workers = {"with": Worker(preset, with_options=True), "without": Worker(preset, with_options=False)}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for worker in workers.values():
        worker.ask("4")  # the first call is slow
    pace = max(float(worker.ask("4")) for worker in workers.values()) / 4
    steps = max(1, min(MAX_CHUNK, round(TURN_SECONDS / pace)))
    for number in range(rounds):
        for name in sorted(workers, reverse=bool(number % 2)):
            seconds[name].append(float(workers[name].ask(str(steps))))
    digests = [worker.ask("digest") for worker in workers.values()]
    for worker in workers.values():
        worker.end()
    gains = [without / with_ for without, with_ in zip(seconds["without"], seconds["with"], strict=True)]
    return {
        "steps_a_chunk": steps,
        "seconds": seconds,
        "gain": statistics.median(gains),
        "quartiles": [float(q) for q in np.percentile(gains, [25, 75])],
        "equal": digests[0] == digests[1],
    }


def table(record: dict[str, Any]) -> str:
    """The gains, as they stand in `benchmarks/README.md`."""
    lines = [
        f"Median of {record['rounds']} chunks each, in turns: {record_line(record)}",
        "",
        "| preset | speed with the options against without (quartiles) | the same bytes |",
        "|---|---|---|",
    ]
    for preset, found in record["results"].items():
        low, high = found["quartiles"]
        same = "yes" if found["equal"] else "NO"
        lines.append(f"| `{preset}` | {found['gain']:.3f} ({low:.3f}–{high:.3f}) | {same} |")
    return "\n".join(lines)


def main() -> int:
    """Measures, prints and writes; or serves as a worker."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="chunks of each (default: 60)")
    parser.add_argument("--preset", choices=list(PRESETS), help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "compiler_options.json", help="where the record goes")
    options = parser.parse_args()
    if options.preset:
        serve(options.preset, with_options=not options.without)
        return 0
    warn_if_busy()
    load = [load_average()]
    record = {
        "machine": describe_machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": options.rounds,
        "results": {preset: compare(preset, options.rounds) for preset in ("keras", "paper", "pendulum", "gist")},
    }
    record["load_average"] = [*load, load_average()]
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    if options.out == parser.get_default("out"):
        fill_readme("compiler-options", table(record))
    return int(not all(found["equal"] for found in record["results"].values()))


if __name__ == "__main__":
    sys.exit(main())
