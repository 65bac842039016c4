"""Compiles the programs of the presets for a device that is not there: `python benchmarks/ahead_of_time.py`.

XLA compiles for an NVIDIA GPU wherever JAX's plugin for CUDA and CUDA's assembler `ptxas` are installed (a toolkit in
/usr/local, for example), and for a TPU wherever `libtpu` is. Install them into environments of their own:

    python -m venv ~/.cache/ddpg_jax/cuda
    ~/.cache/ddpg_jax/cuda/bin/pip install . "jax==0.10.2"
    ~/.cache/ddpg_jax/cuda/bin/pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2
    JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 ~/.cache/ddpg_jax/cuda/bin/python benchmarks/ahead_of_time.py

    python -m venv ~/.cache/ddpg_jax/tpu
    ~/.cache/ddpg_jax/tpu/bin/pip install . "jax[tpu]==0.10.2"
    JAX_PLATFORMS=cpu ~/.cache/ddpg_jax/tpu/bin/python benchmarks/ahead_of_time.py --target v5e

For each preset and group size it records what the training program needs (memory of arguments, temporaries and at its
peak), whether it copies an array of the replay's size, what a step launches, and the seconds to compile. Nothing is
executed, so this says nothing about speed. Writes `results/ahead_of_time_<target>.json`, where it keeps the programs
that are not compiled again (`--only`, `--groups`), and prints a table.
"""

import itertools
import json
import re
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from hlo import learning_loop, replay_copies
from jax.experimental import topologies
from record import RESULTS, begin, circumstances, commit, make_parser, markdown, write

from ddpg_jax import PRESETS
from ddpg_jax.environments.registry import task_of
from ddpg_jax.training import programs
from ddpg_jax.training.devices import pinned_jax_config
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup

MIB = 2**20

H100 = Path(__file__).with_name("h100.txtpb").read_text()
TARGETS: dict[str, dict[str, str]] = {
    "h100": {"platform": "cuda", "topology": "1x1x1", "target_config": H100},
    "v5e": {"platform": "tpu", "topology_name": "v5e:2x2"},
}
"""The devices that can be compiled for: arguments of `get_topology_desc`."""

COMPILERS = {"h100": "jax-cuda12-plugin", "v5e": "libtpu"}
"""The package that compiles for a target."""


@pinned_jax_config()
def examine(preset: str, group_size: int, devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Compiles the training program of a preset; returns what it needs, or why it could not be compiled."""
    config = PRESETS[preset]
    # A few rows less: a number that is no other array's size, by which copies of the replay are found.
    config = config.replace(replay_capacity=config.replay_capacity - config.num_envs)
    task = task_of(config)
    lowered = programs.lower_programs(
        make_setup(config, task.environment),
        programs.Placement(tuple(devices), group_size),
        starts=task.evaluation_starts(64),
        hyperparameters=jax.tree.structure(make_hyperparameters(config)),
    )["train"]
    start = time.perf_counter()
    found = {"preset": preset, "group_size": group_size, "commit": commit()}
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return found | {"error": re.sub(r"\s+", " ", str(error))[:300]}
    seconds, text = time.perf_counter() - start, str(compiled.as_text())
    memory: Any = compiled.memory_analysis()
    return found | {
        "compile_seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
        "replay_copies": replay_copies(text, config.replay_capacity, in_loops=False),
        "replay_copies_in_loops": replay_copies(text, config.replay_capacity, in_loops=True),
        "launches": dict(learning_loop(text).launches.most_common()),
    }


def row(found: dict[str, Any]) -> list[str]:
    """Returns a row of the table."""
    name = [f"`{found['preset']}`", str(found["group_size"])]
    if "error" in found:
        return [*name, f"not compiled: {found['error'].partition(':')[0]}", *"–––––"]
    sizes = [f"{found[f'{kind}_bytes'] / MIB:,.0f}" for kind in ("argument", "temporary", "peak")]
    copies = f"{len(found['replay_copies'])}, {len(found['replay_copies_in_loops'])} in the loops"
    return [*name, *sizes, copies, str(sum(found["launches"].values())), f"{found['compile_seconds']:.0f}"]


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    columns = ("preset", "agents at a time", "arguments, MiB", "temporaries, MiB", "peak, MiB", "copies of the replay",
               "operations per step", "compilation, s")  # fmt: skip
    head = f"One {record['device']}, compiled without it ({record['versions']}). {circumstances(record)}"
    return f"{head}\n\n{markdown(columns, map(row, record['programs']))}"


def main() -> None:
    """Compiles and prints; writes after each program, together with those that the record has."""
    parser = make_parser(__doc__)
    parser.add_argument("--target", choices=list(TARGETS), default="h100", help="the device (default: h100)")
    parser.add_argument("--only", nargs="*", choices=list(PRESETS), default=list(PRESETS), help="presets")
    parser.add_argument("--groups", nargs="*", type=int, default=list(programs.ACCELERATOR_GROUPS), help="group sizes")
    options = parser.parse_args()
    devices: Any = topologies.get_topology_desc(**TARGETS[options.target]).devices[:1]
    path = RESULTS / f"ahead_of_time_{options.target}.json"
    earlier = json.loads(path.read_text())["programs"] if path.exists() else []
    there = {(found["preset"], found["group_size"]): found for found in earlier}
    package = COMPILERS[options.target]
    versions = {"jax": jax.__version__, package: version(package)}
    record = begin() | {"device": devices[0].device_kind, "versions": versions}
    order = list(itertools.product(PRESETS, programs.ACCELERATOR_GROUPS))
    for preset, group_size in itertools.product(options.only, options.groups):
        there[preset, group_size] = examine(preset, group_size, devices)
        print(*row(there[preset, group_size]), sep=" | ", flush=True)
        write(path, record | {"programs": [there[key] for key in sorted(there, key=order.index)]})
    print(table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
