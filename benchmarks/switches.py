"""Measures what each switch of the family costs in time: `python benchmarks/switches.py`.

Trains agents on Pendulum with the networks and minibatches of the preset `continuous` and one switch on, in turn, and
compares the time of a step with that of all switches off in the same round. Writes `results/switches.json`, and the
table in `docs/family.md`. Takes about five minutes on two cores.
"""

import json
import statistics
from typing import Any

from family import CHANGES
from record import RESULTS, begin, circumstances, fill, make_parser, markdown, write
from throughput import rate_of

import ddpg_jax
from ddpg_jax import PRESETS

BASE = PRESETS["continuous"].replace(env_id="Pendulum-v1", n_step=1, critic_normalization="none")

SWITCHES: dict[str, dict[str, Any]] = {
    **CHANGES,
    "categorical critic": {"critic_atoms": 51, "value_min": -2_000.0},
    "layer normalisation in both networks": {"actor_normalization": "layer", "critic_normalization": "layer"},
    "residual blocks: critic one of 64 units, actor one of 32": {
        "hidden_layers": "residual",
        "hidden_init": "orthogonal",
        "hidden_sizes": (32,),
        "critic_hidden_sizes": (64,),
    },
    "decoupled L2": {"actor_l2": 0.01, "critic_l2": 0.01, "decoupled_l2": True},
    "two updates per step": {"updates_per_train": 2},
    "averaged weights": {"ema_tau": 0.001},
}
"""The fields of each switch."""


def main() -> None:
    """Measures in rounds, and writes after each of them."""
    parser = make_parser(__doc__)
    parser.add_argument("--agents", type=int, default=8, help="of each run (default: 8)")
    parser.add_argument("--seconds", type=float, default=2.0, help="shortest training that counts (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each switch (default: 3)")
    options = parser.parse_args()
    ddpg_jax.use_all_cores()
    record: dict[str, Any] = begin() | {"agents": options.agents, "seconds_per_step": {}}
    times: dict[str, list[float]] = record["seconds_per_step"]
    for number in range(options.rounds):
        for name, fields in {"off": {}, **SWITCHES}.items():
            run = rate_of(BASE.replace(**fields), None, options.agents, options.seconds)
            times.setdefault(name, []).append(run["train_seconds"] / run["env_steps"])
            print(f"round {number + 1}, {name}: {1e6 * times[name][-1]:,.0f} us per step of all agents", flush=True)
        write(RESULTS / "switches.json", record)
    record = json.loads((RESULTS / "switches.json").read_text())
    rows = []
    for name in SWITCHES:
        ratios = [on / off for on, off in zip(times[name], times["off"], strict=True)]
        rows.append([name, f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"])
    text = markdown(["switch", "time per step, all off = 1: median (range)"], rows)
    fill("family.md", "cost", f"{circumstances(record)}\n\n{text}")


if __name__ == "__main__":
    main()
