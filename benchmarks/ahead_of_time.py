"""Compiles the programs of the presets for a device that is not there: `python benchmarks/ahead_of_time.py`.

XLA compiles for a TPU wherever `libtpu` is installed, and for an NVIDIA GPU wherever JAX's plugin for CUDA and CUDA's
assembler `ptxas` are (a toolkit in /usr/local, for example). Install them into environments of their own:

    python -m venv ~/.cache/ddpg_jax/tpu
    ~/.cache/ddpg_jax/tpu/bin/pip install . "jax[tpu]==0.10.2"
    JAX_PLATFORMS=cpu ~/.cache/ddpg_jax/tpu/bin/python benchmarks/ahead_of_time.py

    python -m venv ~/.cache/ddpg_jax/cuda
    ~/.cache/ddpg_jax/cuda/bin/pip install . "jax==0.10.2"
    ~/.cache/ddpg_jax/cuda/bin/pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2
    JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 ~/.cache/ddpg_jax/cuda/bin/python benchmarks/ahead_of_time.py --target h100

For each preset and group size it records what the training program needs (memory of arguments, temporaries and at its
peak), whether it copies an array of the replay's size, what a step of the loop launches, whether the loop's number of
rounds is known, and the seconds to compile. Nothing is executed, so this says nothing about speed. Writes
`benchmarks/results/ahead_of_time_<target>.json`, and the table in `benchmarks/README.md`; with `--only` and `--groups`
these keep the other programs.
"""

import argparse
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
from record import RESULTS, commit, describe_machine, fill_readme, load_average, record_line

from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population import programs
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.presets import PRESETS
from ddpg_jax.processes.devices import own_settings
from ddpg_jax.runs.course import MAX_CHUNK

MIB = 2**20

TARGETS: dict[str, dict[str, str]] = {
    "v5e": {"platform": "tpu", "topology_name": "v5e:2x2"},
    "h100": {
        "platform": "cuda",
        "topology": "1x1x1",
        "target_config": Path(__file__).with_name("h100.txtpb").read_text(),
    },
}
"""The devices that can be compiled for: arguments of `get_topology_desc`."""

PACKAGES = {"v5e": "libtpu", "h100": "jax-cuda12-plugin"}
"""The package that compiles for a target."""


def odd_capacity(config: Config) -> Config:
    """Returns a configuration with a few rows less in its replay: a number that is no other array's size."""
    return config.replace(replay_capacity=config.replay_capacity - config.num_envs)


def training_program(config: Config, placement: programs.Placement) -> jax.stages.Lowered:
    """Returns the training program of a block, lowered for the placement's devices."""
    setup = make_setup(config, make(config.env_id))
    lowered = programs.lower_programs(
        setup,
        placement,
        max_steps=MAX_CHUNK,
        num_starts=config.eval_episodes,
        hyperparameters=jax.tree.structure(make_hyperparameters(config)),
    )
    return lowered["train"]


@own_settings()
def examine(preset: str, group_size: int, devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Compiles the training program of a preset; returns what it needs, or why it could not be compiled."""
    config = odd_capacity(PRESETS[preset])
    lowered = training_program(config, programs.Placement(tuple(devices), group_size))
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return {"preset": preset, "group_size": group_size, "error": _first_lines(str(error))}
    seconds, text = time.perf_counter() - start, str(compiled.as_text())
    memory: Any = compiled.memory_analysis()
    learning = learning_loop(text)
    return {
        "preset": preset,
        "group_size": group_size,
        "compile_seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
        "replay_copies": replay_copies(text, config.replay_capacity, in_loops=False),
        "replay_copies_in_loops": replay_copies(text, config.replay_capacity, in_loops=True),
        "launches": dict(learning.launches.most_common()),
        "known_trip_count": learning.known_trip_count,
    }


def _first_lines(message: str) -> str:
    """Returns the beginning of a compiler's message."""
    return re.sub(r"\s+", " ", message)[:300]


def devices_of(target: str) -> Sequence[jax.Device]:
    """Returns the first device of a target, which need not be there."""
    options = TARGETS[target]
    return topologies.get_topology_desc(**options).devices[:1]


def line_of(found: dict[str, Any]) -> str:
    """Returns a row of the table."""
    name = f"| `{found['preset']}` | {found['group_size']} "
    if "error" in found:
        return f"{name}| not compiled: {found['error'].partition(':')[0]} | – | – | – | – | – |"
    launches = sum(found["launches"].values())
    copies = f"{len(found['replay_copies'])}, {len(found['replay_copies_in_loops'])} in the loops"
    return (
        f"{name}| {found['argument_bytes'] / MIB:,.0f} | {found['temporary_bytes'] / MIB:,.0f} "
        f"| {found['peak_bytes'] / MIB:,.0f} | {copies} | {launches} | {found['compile_seconds']:.0f} |"
    )


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        f"One {record['device']}, compiled without it ({versions}): {record_line(record)}",
        "",
        "| preset | agents at a time | arguments, MiB | temporaries, MiB | peak, MiB | copies of the replay "
        "| operations per step | compilation, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(line_of, record["programs"])])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=list(TARGETS), default="v5e", help="the device (default: v5e)")
    parser.add_argument("--only", nargs="*", choices=list(PRESETS), default=list(PRESETS),
                        help="presets (default: all)")  # fmt: skip
    parser.add_argument("--groups", nargs="*", type=int, default=list(programs.ACCELERATOR_GROUPS),
                        help="group sizes (default: those that the command chooses)")  # fmt: skip
    parser.add_argument("--out", help="where the record goes, *.json (default: in benchmarks/results)")
    return parser.parse_args(arguments)


def main() -> None:
    """Compiles and prints; writes after each program, beside those that the record has."""
    options = parse()
    devices = devices_of(options.target)
    path = RESULTS / f"ahead_of_time_{options.target}.json" if options.out is None else Path(options.out)
    earlier = json.loads(path.read_text())["programs"] if path.exists() else []
    programs, load = {(each["preset"], each["group_size"]): each for each in earlier}, load_average()
    for preset, group_size in itertools.product(options.only, options.groups):
        programs[preset, group_size] = {**examine(preset, group_size, devices), "commit": commit()}
        print(line_of(programs[preset, group_size]), flush=True)
        record = {
            "device": devices[0].device_kind,
            "machine": describe_machine(),
            "versions": {"jax": jax.__version__, PACKAGES[options.target]: version(PACKAGES[options.target])},
            "commit": commit(),
            "date": time.strftime("%Y-%m-%d"),
            "load_average": [load, load_average()],
            "programs": [programs[key] for key in sorted(programs, key=lambda key: (list(PRESETS).index(key[0]), key))],
        }
        path.write_text(json.dumps(record, indent=1) + "\n")
        if options.out is None:
            fill_readme(f"ahead-of-time-{options.target}", table(record))


if __name__ == "__main__":
    main()
