"""Compares this project with other implementations on the Keras tutorial's configuration: `python benchmarks/peers.py`.

Builds a virtual environment for each peer, because their dependencies conflict. Then runs the scripts in
`benchmarks/peers/` in rounds, each peer once per round in a process of its own, with its own default number of threads,
on the CPU. After 200 steps a peer is timed for 8 seconds; ratios compare runs of the same round. Writes
`results/peers.json`, and the table in `docs/performance.md`. Five rounds take half an hour on two cores, after the
first installation (7 GB). `--only ours ours_gymnasium sb3 sbx` writes `results/peers_gymnasium.json` and the table in
`docs/environments.md`.
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import RESULTS, ROOT, begin, circumstances, fill, make_parser, markdown, write

MARK = "PEER-RESULT "  # as in peers/harness.py
TIMEOUT = 900.0
"""Seconds after which a run counts as failed."""


@dataclass(frozen=True)
class Peer:
    """An implementation, the script that measures it, and the packages that it needs."""

    title: str
    script: str
    requirements: tuple[str, ...] = ()
    """If empty, it runs in the same environment as this script."""
    agents: tuple[int, ...] = (1,)
    """Numbers of agents to measure; one process trains them together."""
    flags: tuple[str, ...] = ()


_JAX = ("jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "optax==0.2.8", "numpy==2.4.6")
SB3 = ("stable-baselines3==2.9.2", "gymnasium==1.3.0")
PEERS: dict[str, Peer] = {
    "ours": Peer("ddpg_jax", "ours.py", agents=(1, 8, 32)),
    "ours_bfloat16": Peer("ddpg_jax, `--matmul-dtype bfloat16`", "ours.py", agents=(1, 32),
                          flags=("--matmul-dtype", "bfloat16")),
    "ours_gymnasium": Peer("ddpg_jax, `gymnasium:Pendulum-v1`", "ours.py", agents=(1, 8),
                           flags=("--env-id", "gymnasium:Pendulum-v1")),
    "keras": Peer("the Keras tutorial, our implementation for Keras 3", "keras_tutorial.py",
                  ("tensorflow==2.21.0", "keras==3.15.1", "gymnasium==1.3.0")),
    "sb3": Peer("Stable-Baselines3 DDPG", "stable_baselines.py", (*SB3, "numpy==2.4.6")),
    "sbx": Peer("SBX DDPG", "stable_baselines.py", ("sbx-rl==0.28.0", *SB3, *_JAX)),
    "rejax": Peer("rejax TD3, with two critics", "rejax_td3.py", ("rejax==0.1.3", "gymnax==0.0.9", *_JAX), (1, 32)),
}  # fmt: skip


def install(name: str, peer: Peer, cache: Path, torch: str) -> Path:
    """Returns the interpreter of the peer's environment, which is built if it does not exist yet.

    Raises RuntimeError with pip's message if that fails.
    """
    if not peer.requirements:
        return Path(sys.executable)
    folder = cache / name
    python, stamp = folder / "bin/python", folder / "installed.json"
    needs_torch = any(requirement in SB3 for requirement in peer.requirements)
    lists = [shlex.split(torch)] * needs_torch + [list(peer.requirements)]
    wanted = json.dumps([platform.python_version(), *lists])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {name}: {', '.join(peer.requirements)}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    for requirements in lists:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
        if done.returncode:
            raise RuntimeError(f"cannot be installed: {error_line(done.stderr)}")
    stamp.write_text(wanted)
    return python


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without variables that affect peers: paths, threads and compiler flags."""
    prefixes = ("PYTHONPATH", "XLA_", "JAX_", "OMP_", "MKL_", "TF_", "KERAS_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}


def error_line(output: str) -> str:
    """Returns the last line in which a failed program gives the reason."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no message"])[-1].replace(str(ROOT), ".").replace(str(Path.home()), "~")[:300]


def run(name: str, agents: int, python: Path, seed: int, seconds: float, cache_home: str) -> dict[str, Any]:
    """Runs the peer's script; returns its measurements, or its `error`."""
    peer = PEERS[name]
    environment = clean_environment() | {"XDG_CACHE_HOME": cache_home, "JAX_PLATFORMS": "cpu"}
    environment |= {"PEER_STARTED": str(time.time())} | ({} if peer.requirements else {"PYTHONPATH": str(ROOT)})
    command = [str(python), str(ROOT / "benchmarks/peers" / peer.script), "--agents", str(agents), "--seed", str(seed),
               "--seconds", str(seconds), *peer.flags]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {TIMEOUT:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        return {"error": error_line(done.stderr)}
    return json.loads(lines[-1].removeprefix(MARK))


def values_of(rounds: Sequence[dict[str, Any]], case: str, key: str) -> list[float]:
    """Returns the values of a case (a peer and a number of agents) in all rounds in which it ran."""
    return [found[case][key] for found in rounds if "error" not in found.get(case, {"error": ""})]


def ratios(rounds: Sequence[dict[str, Any]], ours: str, theirs: str) -> str:
    """Returns our steps per second divided by theirs, the median and the range of the rounds."""
    pairs = [(found.get(ours, {}), found.get(theirs, {})) for found in rounds]
    key = "steps_per_second"
    return spread([ours[key] / theirs[key] for ours, theirs in pairs if key in ours and key in theirs], "{:.2f}")


def spread(values: Sequence[float], form: str) -> str:
    """Formats the median and the range."""
    if not values:
        return "–"
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} ({low}–{high})" if len(values) > 1 else middle


def row(name: str, rounds: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the row of a peer."""
    peer, one = PEERS[name], f"{name}-1"

    def measured(key: str, form: str, case: str = one) -> str:
        return spread(values_of(rounds, case, key), form)

    if not values_of(rounds, one, "steps_per_second"):
        return [peer.title, f"fails: {rounds[0].get(one, {}).get('error')}", *[""] * 5]
    together = [f"{measured('steps_per_second', '{:,.0f}', f'{name}-{agents}')} ({agents} agents)"
                for agents in peer.agents[1:]]  # fmt: skip
    return [
        peer.title,
        measured("steps_per_second", "{:,.0f}"),
        "; ".join(together) or "–",
        *(ratios(rounds, ours, one) if peer.requirements else "–" for ours in ("ours-1", "ours-32")),
        measured("startup_seconds", "{:.1f}"),
        f"{statistics.median(values_of(rounds, one, 'peak_megabytes')):,.0f}",
    ]


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    rounds, columns = record["rounds"], ("system", "steps/s, one agent", "steps/s, together",
                                         "one of ours / one of theirs", "32 of ours / one of theirs", "start, s",
                                         "peak memory, MB")  # fmt: skip
    head = f"{len(rounds)} rounds of {record['seconds']:g} s. {circumstances(record)}"
    return f"{head}\n\n{markdown(columns, [row(name, rounds) for name in PEERS if name in record['peers']])}"


def main() -> None:
    """Installs the peers, measures, and writes the record after each round."""
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="*", choices=list(PEERS), default=list(PEERS), help="peers (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each peer (default: 5)")
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of the timed window of a run (default: 8)")
    cache = Path.home() / ".cache/ddpg_jax/peers"
    parser.add_argument("--cache", type=Path, default=cache, help="virtual environments")
    parser.add_argument("--torch", default="torch==2.13.0", help='PyTorch for pip, such as "torch --index-url …"')
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of the record")
    options = parser.parse_args()
    everything = options.only == list(PEERS)
    path = RESULTS / ("peers.json" if everything else "peers_gymnasium.json")
    if not options.table:
        record = begin() | {"seconds": options.seconds, "peers": options.only, "rounds": []}
        pythons = {name: install(name, PEERS[name], options.cache, options.torch) for name in options.only}
        for number in range(options.rounds):
            found = {}
            with tempfile.TemporaryDirectory() as cache_home:  # our first run of a round finds no compiled programs
                for name, python in pythons.items():
                    for agents in PEERS[name].agents:
                        result = run(name, agents, python, number, options.seconds, cache_home)
                        print(f"round {number + 1}, {name}-{agents}: {result}", flush=True)
                        found[f"{name}-{agents}"] = result
            record["rounds"].append(found)
            write(path, record)
    page, mark = ("performance.md", "peers") if everything else ("environments.md", "peers-gymnasium")
    fill(page, mark, table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
