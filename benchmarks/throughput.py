"""Measures updates per second against the number of agents: `python benchmarks/throughput.py`.

Trains 1 to 256 agents of each case through `ddpg_jax.train`, long enough for the seconds of training to count. These
seconds do not include compilation and evaluation. Writes `results/throughput_<device>.json`, and the table in
`docs/performance.md`. Takes about 12 minutes on two cores; `--only` and `--agents` make it shorter. It runs on an
accelerator without changes.
"""

import json
import re
import statistics
from typing import Any

import jax
from record import RESULTS, begin, circumstances, fill, make_parser, markdown, write

import ddpg_jax
from ddpg_jax import PRESETS, Config

CASES: dict[str, tuple[Config, int | None]] = {
    "pendulum": (PRESETS["pendulum"], None),
    "pendulum, bfloat16": (PRESETS["pendulum"].replace(matmul_dtype="bfloat16"), None),
    "pendulum, groups of 4": (PRESETS["pendulum"], 4),
    "keras": (PRESETS["keras"], None),
    "keras, bfloat16": (PRESETS["keras"].replace(matmul_dtype="bfloat16"), None),
    "keras, 64-64": (PRESETS["keras"].replace(hidden_sizes=(64, 64)), None),
    "gist": (PRESETS["gist"], None),
    "paper": (PRESETS["paper"].replace(replay_capacity=100_000), None),
}
"""Configurations, and how many agents advance together on a device (None: the default)."""

FIRST_STEPS = 2_000
"""Steps of the shortest run."""


def rate_of(config: Config, group_size: int | None, num_agents: int, seconds: float) -> dict[str, Any]:
    """Trains ever longer until training takes at least `seconds`; returns the last run's speed."""
    steps = FIRST_STEPS
    while True:
        config = config.replace(total_steps=steps, eval_every=steps, eval_episodes=1, final_episodes=1)
        summary = ddpg_jax.train(config, seeds=num_agents, group_size=group_size, progress=False).summary
        if summary.train_seconds >= seconds:
            return {"agents": num_agents, "env_steps": steps, "train_seconds": summary.train_seconds,
                    "updates_per_second": summary.updates_per_second}  # fmt: skip
        steps = min(10 * steps, int(steps * 1.3 * seconds / summary.train_seconds) + 1)


def median_rate(points: list[dict[str, Any]], num_agents: int) -> str:
    """Returns the median speed of a number of agents, as a cell of the table."""
    rates = [point["updates_per_second"] for point in points if point["agents"] == num_agents]
    return f"{statistics.median(rates):,.0f}" if rates else "–"


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    cases: dict[str, list[dict[str, Any]]] = record["cases"]
    counts = sorted({point["agents"] for points in cases.values() for point in points})
    head = f"Updates per second of all agents together, medians, on {record['device']}. {circumstances(record)}"
    rows = [[f"{count:,}", *(median_rate(points, count) for points in cases.values())] for count in counts]
    return f"{head}\n\n{markdown(['agents', *cases], rows)}"


def main() -> None:
    """Measures in rounds, and writes after each of them."""
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="cases (default: all)")
    parser.add_argument("--agents", nargs="*", type=int, default=[1, 8, 32, 256], help="numbers of agents")
    parser.add_argument("--seconds", type=float, default=3.0, help="shortest training that counts (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each number (default: 3)")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the table of the record")
    options = parser.parse_args()
    ddpg_jax.use_all_cores()
    device = jax.devices()[0].device_kind
    path = RESULTS / f"throughput_{re.sub(r'[^a-z0-9]+', '_', device.lower())}.json"
    record = begin() | {"device": f"{jax.device_count()} x {device}", "versions": {"jax": jax.__version__},
                        "cases": {name: [] for name in options.only}}  # fmt: skip
    for number in range(0 if options.table else options.rounds):
        for name in options.only:
            for num_agents in options.agents:
                record["cases"][name].append(rate_of(*CASES[name], num_agents, options.seconds))
                rate = record["cases"][name][-1]["updates_per_second"]
                print(f"round {number + 1}, {name}, {num_agents} agents: {rate:,.0f} updates/s", flush=True)
        write(path, record)
    fill("performance.md", "throughput", table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
