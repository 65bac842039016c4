"""Compares the command's placement of agents with the others: `python benchmarks/placements.py`.

For each preset and number of agents, every sensible pair of `--devices` and `--group-size` trains for short times in
turns, together with what the command chooses. A pair is left out where it would only fill up: more agents in a block
than there are. Replays are full of transitions that the agents have gathered, and have at most 20,000 rows. Writes
`benchmarks/results/placements.json`, and the table in `benchmarks/README.md`. With `--groups 1 4 --repeats
3`, five presets take about 8 minutes on two cores.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from experiments import interleaved
from record import RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy
from trainers import Machine, Trainer, compile_trainer, new_population, seconds_of

from ddpg_jax.config import Config
from ddpg_jax.presets import PRESETS
from ddpg_jax.processes import devices
from ddpg_jax.runs.course import MAX_CHUNK
from ddpg_jax.runs.placement import choose_placement

LONGEST_CHUNK = 2.0
"""Seconds of a chunk, at most: shorter than the command's, which are at most ten seconds."""

MAX_ROWS = 20_000
"""Rows of a replay, at most: all populations of a comparison must fit into memory together."""


def config_of(preset: str) -> Config:
    """Returns a preset's values, with a replay of at most `MAX_ROWS`."""
    config = PRESETS[preset]
    return config.replace(replay_capacity=min(config.replay_capacity, MAX_ROWS))


def chosen_placement(num_agents: int) -> tuple[int, int]:
    """Returns the number of devices and the group size that the command chooses without flags."""
    placement = choose_placement(num_agents)
    return len(placement.devices), placement.group_size


def candidates(num_agents: int, groups: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the pairs of devices and group size whose blocks hold no more agents than there are."""
    counts = range(1, len(jax.devices()) + 1)
    return [(number, group) for number in counts for group in groups if number * group <= num_agents]


def measure_preset(preset: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures a preset with each number of agents; returns a point for each."""
    config, trainers, points = config_of(preset), {}, []
    for num_agents in options.agents:
        chosen = chosen_placement(num_agents)
        pairs = sorted({chosen, *candidates(num_agents, options.groups)})
        for number, group in pairs:
            if (number, group) not in trainers:
                machine = Machine(tuple(jax.devices()[:number]), group, lambda: 0.0, "")
                trainers[number, group] = compile_trainer(config, machine)
        points.append(measure_point(config, num_agents, {pair: trainers[pair] for pair in pairs}, chosen, options))
        print(f"  {line_of(points[-1])}", flush=True)
    return points


def measure_point(
    config: Config,
    num_agents: int,
    trainers: dict[tuple[int, int], Trainer],
    chosen: tuple[int, int],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measures all placements of a number of agents in turns."""
    populations = {f"{number} x {group}": new_population(trainers[number, group], num_agents)
                   for number, group in trainers}  # fmt: skip
    for population in populations.values():
        seconds_of(population, 2, 1)  # the first call is slow
    slowest = max(seconds_of(population, 10, 1) / 10 for population in populations.values())
    steps = max(1, min(MAX_CHUNK, int(LONGEST_CHUNK / slowest)))
    seconds = interleaved(populations, options.repeats, steps)["seconds_a_step"]
    del populations
    gc.collect()
    updates = config.updates_per_train / config.train_every
    rates = {name: num_agents * updates / statistics.median(times) for name, times in seconds.items()}
    default = f"{chosen[0]} x {chosen[1]}"
    best = max(rates, key=lambda name: rates[name])
    shares = [a / b for a, b in zip(seconds[best], seconds[default], strict=True)]
    return {
        "agents": num_agents,
        "default": default,
        "best": best,
        "default_relative_to_best": statistics.median(shares),
        "updates_per_second": rates,
        "seconds_a_step": seconds,
    }


def line_of(point: dict[str, Any]) -> str:
    """Returns a point as a line of text."""
    rates = point["updates_per_second"]
    return (
        f"{point['agents']:3} agents: {rates[point['default']]:8,.0f} updates/s by default ({point['default']}), "
        f"{rates[point['best']]:8,.0f} at best ({point['best']}): {point['default_relative_to_best']:.2f}"
    )


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    counts = [point["agents"] for point in next(iter(record["presets"].values()))]
    lines = [
        f"Medians of {record['repeats']} repeats in turns: {record_line(record)}",
        "",
        f"| preset | {' | '.join(f'{count} agent' + 's' * (count > 1) for count in counts)} |",
        f"|---|{'---|' * len(counts)}",
    ]
    for preset, points in record["presets"].items():
        cells = []
        for point in points:
            rates, best = point["updates_per_second"], point["best"]
            other = "" if best == point["default"] else f", {rates[best]:,.0f} with {best}"
            cells.append(f"{point['default_relative_to_best']:.2f}: {rates[point['default']]:,.0f}{other}")
        lines.append(f"| `{preset}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PRESETS), default=list(PRESETS),
                        help="presets (default: all)")  # fmt: skip
    parser.add_argument("--agents", nargs="*", type=int, default=[1, 2, 4, 8, 9, 32],
                        help="numbers of agents (default: 1 2 4 8 9 32)")  # fmt: skip
    parser.add_argument("--groups", nargs="*", type=int, default=[1, 2, 4, 8], help="group sizes (default: 1 2 4 8)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats (default: 5)")
    parser.add_argument("--out", type=Path, help="where the record goes, *.json (default: in benchmarks/results)")
    return parser.parse_args(arguments)


def main() -> None:
    """Measures, prints and writes."""
    options = parse()
    devices.prepare(None)
    jax.config.update("jax_enable_compilation_cache", False)
    warn_if_busy()
    load, presets = [load_average()], {}
    for preset in options.only:
        print(preset, flush=True)
        presets[preset] = measure_preset(preset, options)
    record = {
        "machine": describe_machine(),
        "versions": {"jax": jax.__version__},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "repeats": options.repeats,
        "load_average": [*load, load_average()],
        "presets": presets,
    }
    (options.out or RESULTS / "placements.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    if options.out is None:
        fill_readme("placements", table(record))


if __name__ == "__main__":
    main()
