"""Compiles the programs of the presets for a device that is not there: `python benchmarks/ahead_of_time.py`.

XLA compiles for a TPU on any machine that has `libtpu`; install it into an environment of its own:

    python -m venv ~/.cache/ddpg_jax/tpu
    ~/.cache/ddpg_jax/tpu/bin/pip install . "jax[tpu]==0.10.2"
    JAX_PLATFORMS=cpu ~/.cache/ddpg_jax/tpu/bin/python benchmarks/ahead_of_time.py

For each preset and group size it records what the training program needs (memory of arguments, temporaries and at its
peak), whether it copies an array of the replay's size, what a step of the loop launches, whether the loop's number of
rounds is known, and the seconds to compile. Nothing is executed, so this says nothing about speed. With `--platform
cuda`, `jax.export` only lowers the programs for CUDA. Writes
`benchmarks/results/ahead_of_time_<topology>.json`, and the table in `benchmarks/README.md`.
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from hlo import learning_loop, replay_copies
from jax.experimental import topologies
from record import RESULTS, commit, describe_machine, fill_readme, load_average, record_line

from ddpg_jax.algorithm import loop
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population import programs
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.presets import PRESETS
from ddpg_jax.runs.course import MAX_CHUNK

MIB = 2**20


def odd_capacity(config: Config) -> Config:
    """Returns a configuration with one row less in its replay: a number that is no other array's size."""
    return config.replace(replay_capacity=config.replay_capacity - 1)


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


def export_for(platform: str, preset: str) -> dict[str, Any]:
    """Lowers an agent's training program for a platform with `jax.export`; nothing is compiled."""
    config = PRESETS[preset]
    setup = make_setup(config, make(config.env_id))
    state = programs.train_state_shapes(setup)
    scalars = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), jnp.float32), make_hyperparameters(config))
    train = jax.jit(partial(loop.train, setup=setup, max_steps=MAX_CHUNK))
    exported = jax.export.export(train, platforms=[platform])(state, scalars, jax.ShapeDtypeStruct((), jnp.int32))
    return {"preset": preset, "bytes_of_stablehlo": len(exported.mlir_module_serialized)}


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
    lines = [
        f"{record['topology']}, one device, compiled without it (libtpu {record['versions']['libtpu']}, "
        f"jax {record['versions']['jax']}): {record_line(record)}",
        "",
        "| preset | agents at a time | arguments, MiB | temporaries, MiB | peak, MiB | copies of the replay "
        "| operations per step | compilation, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(line_of, record["programs"])])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", choices=["tpu", "cuda"], default="tpu", help="of the devices (default: tpu)")
    parser.add_argument("--topology", default="v5e:2x2", help="the TPUs that are compiled for (default: v5e:2x2)")
    parser.add_argument("--only", nargs="*", choices=list(PRESETS), default=list(PRESETS),
                        help="presets (default: all)")  # fmt: skip
    parser.add_argument("--groups", nargs="*", type=int, default=list(programs.ACCELERATOR_GROUPS),
                        help="group sizes (default: those that the command chooses)")  # fmt: skip
    parser.add_argument("--out", help="where the record goes, *.json (default: in benchmarks/results)")
    return parser.parse_args(arguments)


def main() -> None:
    """Compiles, prints and writes."""
    options = parse()
    if options.platform == "cuda":
        print(json.dumps([export_for("cuda", preset) for preset in options.only], indent=1))
        return
    from importlib.metadata import version

    topology = topologies.get_topology_desc(platform=options.platform, topology_name=options.topology)
    load, found = [load_average()], []
    for preset in options.only:
        for group_size in options.groups:
            found.append(examine(preset, group_size, topology.devices[:1]))
            print(line_of(found[-1]), flush=True)
    record = {
        "topology": options.topology,
        "machine": describe_machine(),
        "versions": {"jax": jax.__version__, "libtpu": version("libtpu")},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "load_average": [*load, load_average()],
        "programs": found,
    }
    slug = re.sub(r"[^a-z0-9]+", "_", options.topology.lower())
    path = RESULTS / f"ahead_of_time_{slug}.json" if options.out is None else options.out
    with open(path, "w") as file:
        file.write(json.dumps(record, indent=1) + "\n")
    if options.out is None:
        fill_readme("ahead-of-time", table(record))


if __name__ == "__main__":
    main()
