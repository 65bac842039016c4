"""Compares this project with other implementations on the Keras tutorial's configuration: `python benchmarks/peers.py`.

Builds one virtual environment for each peer, because their dependencies conflict. Then runs the scripts in
`benchmarks/peers/` in rounds, each peer once per round, and compares measurements of the same round. Every peer runs
with its own default number of threads, on the CPU. Writes `benchmarks/results/peers.json` and the table in
`benchmarks/README.md`. Seven rounds with `--processes 2` take about 37 minutes on two cores, and the environments take
7 GB of disk space.
"""

import argparse
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import HERE, RESULTS, commit, describe_machine, fill_readme, load_average, record_line, warn_if_busy

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
    needs_torch: bool = False
    agents: tuple[int, ...] = (1,)
    """Numbers of agents to measure; one process trains them together."""
    names: tuple[str, ...] = ()
    """Packages whose versions are listed in the table."""


OURS = "ours"
ROUNDED = "ours_bfloat16"
TOGETHER = 32
_JAX = ("jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "optax==0.2.8", "numpy==2.4.6")
PEERS: dict[str, Peer] = {
    OURS: Peer("ddpg_jax", "ours.py", agents=(1, 8, TOGETHER), names=("ddpg_jax", "jax")),
    ROUNDED: Peer(
        "ddpg_jax, `--matmul-dtype bfloat16`", "ours_bfloat16.py", agents=(1, TOGETHER), names=("ddpg_jax", "jax")
    ),
    "ours_gymnasium": Peer(
        "ddpg_jax, `--env-id gymnasium:Pendulum-v1`",
        "ours_gymnasium.py",
        agents=(1, 8),
        names=("ddpg_jax", "gymnasium"),
    ),
    "keras": Peer(
        "Keras tutorial, our implementation",
        "keras_tutorial.py",
        ("tensorflow==2.21.0", "keras==3.15.1", "gymnasium==1.3.0"),
        names=("tensorflow", "keras"),
    ),
    "sb3": Peer(
        "Stable-Baselines3 DDPG",
        "stable_baselines.py",
        ("stable-baselines3==2.9.2", "gymnasium==1.3.0", "numpy==2.4.6"),
        needs_torch=True,
        names=("stable-baselines3", "torch"),
    ),
    "sbx": Peer(
        "SBX DDPG",
        "sbx_ddpg.py",
        ("sbx-rl==0.28.0", "stable-baselines3==2.9.2", "gymnasium==1.3.0", *_JAX),
        needs_torch=True,
        names=("sbx-rl", "jax"),
    ),
    "cleanrl": Peer(
        "CleanRL DDPG in JAX, our equivalent",
        "cleanrl_equivalent.py",
        ("gymnasium==1.3.0", *_JAX),
        names=("jax", "flax"),
    ),
    "rejax": Peer(
        "rejax TD3, with two critics",
        "rejax_td3.py",
        ("rejax==0.1.3", "gymnax==0.0.9", *_JAX),
        agents=(1, TOGETHER),
        names=("rejax", "gymnax", "jax"),
    ),
}


@dataclass(frozen=True)
class Case:
    """A measurement of a round."""

    peer: str
    agents: int = 1
    processes: int = 1
    """Copies that run at the same time; their steps per second are added."""

    @property
    def name(self) -> str:
        return f"{self.peer}-{self.agents}" + (f"-in-{self.processes}-processes" if self.processes > 1 else "")


# Environments


def install(name: str, peer: Peer, cache: Path, torch: str) -> Path:
    """Returns the interpreter of the peer's environment, which is built if it does not exist yet.

    Raises:
        RuntimeError: with pip's message if that fails.
    """
    if not peer.requirements:
        return Path(sys.executable)
    folder = cache / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    lists = [shlex.split(torch)] * peer.needs_torch + [list(peer.requirements)]
    wanted, stamp = json.dumps([platform.python_version(), *lists]), folder / "installed.json"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {name}: {', '.join(peer.requirements)}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    for requirements in lists:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        done = subprocess.run(command, capture_output=True, text=True, env=_clean_environment())
        if done.returncode:
            raise RuntimeError(f"cannot be installed: {_error_line(done.stderr)}")
    stamp.write_text(wanted)
    return python


def _clean_environment() -> dict[str, str]:
    """Returns this process's environment without variables that affect peers: paths, threads and compiler flags."""
    prefixes = ("PYTHONPATH", "XLA_", "JAX_", "OMP_", "MKL_", "TF_", "KERAS_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}


def _error_line(output: str) -> str:
    """Returns the last line in which a failed program gives the reason."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no message"])[-1].replace(str(HERE.parent), ".").replace(str(Path.home()), "~")[:300]


# Measurements


def run(case: Case, python: Path, flags: Sequence[str], cache_home: str) -> dict[str, Any]:
    """Runs the peer's script; returns its measurements, or its `error`."""
    environment = _clean_environment() | {"XDG_CACHE_HOME": cache_home, "JAX_PLATFORMS": "cpu"}
    if not PEERS[case.peer].requirements and "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    environment["PEER_STARTED"] = str(time.time())
    command = [str(python), str(HERE / "peers" / PEERS[case.peer].script), "--agents", str(case.agents), *flags]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(case.processes)
    ]
    results = [_result_of(process) for process in processes]
    for result in results:
        if "error" in result:
            return result
    total = {key: sum(result[key] for result in results) for key in ("steps_per_second", "peak_megabytes")}
    return results[0] | total


def _result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"not finished after {TIMEOUT:.0f} s"}
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if process.returncode or not lines:
        return {"error": _error_line(errors)}
    return json.loads(lines[-1].removeprefix(MARK))


def measure(cases: Sequence[Case], interpreters: dict[str, Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs rounds of all cases; returns each round's results by the case's name.

    Each round has a new cache folder for compiled programs. So our first case in a round finds the cache empty, and our
    next case finds it filled.
    """
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        rounds.append({})
        with tempfile.TemporaryDirectory() as cache_home:
            for case in cases:
                flags = ["--seed", str(number), "--seconds", str(options.seconds)]
                result = run(case, interpreters[case.peer], flags, cache_home)
                rounds[-1][case.name] = result
                print(f"round {number + 1}, {case.name}: {_brief(result)}", flush=True)
    return rounds


def measure_returns(interpreters: dict[str, Path], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Trains each peer to the end with several seeds; returns the results with their greedy evaluations, by peer."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in interpreters}
    with tempfile.TemporaryDirectory() as cache_home:
        for seed in range(options.returns):
            for name, python in interpreters.items():
                flags = ["--seed", str(seed), "--total-steps", str(options.total_steps)]
                result = run(Case(name), python, flags, cache_home)
                found[name].append(result)
                print(f"seed {seed}, {name}: return {result.get('greedy_return', _brief(result))}", flush=True)
    return found


def _brief(result: dict[str, Any]) -> str:
    if "error" in result:
        return result["error"]
    return (
        f"{result['steps_per_second']:,.0f} steps/s, {result['startup_seconds']:.1f} s to start, "
        f"{result['peak_megabytes']:,.0f} MB"
    )


def choose_cases(names: Sequence[str], processes: int) -> list[Case]:
    """Returns the measurements of a round."""
    cases = [Case(name, agents) for name in names for agents in PEERS[name].agents]
    if processes > 1:
        cases += [Case(name, 1, processes) for name in names if PEERS[name].requirements]
    return cases


# The table


def values_of(rounds: Sequence[dict[str, Any]], name: str, key: str) -> list[float]:
    """Returns the values of a case in all rounds in which it ran."""
    return [r[name][key] for r in rounds if name in r and "error" not in r[name]]


def ratios(rounds: Sequence[dict[str, Any]], ours: str, theirs: Sequence[str]) -> list[float]:
    """Returns, for each round, our steps per second divided by the best of theirs."""
    found = []
    for results in rounds:
        best = [results[name]["steps_per_second"] for name in theirs if "error" not in results.get(name, {"error": 0})]
        if best and "error" not in results.get(ours, {"error": 0}):
            found.append(results[ours]["steps_per_second"] / max(best))
    return found


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    rounds = record["rounds"]
    lines = [
        f"| system | steps/s, one agent | one of ours / one of its | {TOGETHER} of ours / one of its "
        f"| {TOGETHER} of ours in bfloat16 / one of its | steps/s, together | {TOGETHER} of ours / its best "
        "| start, s | peak memory, MB | greedy return |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, record) for name in PEERS if name in record["peers"]]
    return "\n".join([f"{len(rounds)} rounds of {record['seconds']:g} s: {record_line(record)}", "", *lines])


def _row(name: str, record: dict[str, Any]) -> str:
    rounds, own = record["rounds"], PEERS[name]
    together = [case for case in rounds[0] if case.startswith(f"{name}-") and case != f"{name}-1"]
    cases = [f"{name}-1", *together]
    succeeded = next((r[case] for case in cases for r in rounds if "error" not in r.get(case, {"error": ""})), None)
    if succeeded is None:
        why = record["failed"].get(name) or f"fails: {rounds[0][cases[0]]['error']}"
        return f"| {own.title} | {why} | | | | | | | | |"
    versions = ", ".join(f"{package} {succeeded['versions'][package]}" for package in own.names)
    peaks = [values for case in cases if (values := values_of(rounds, case, "peak_megabytes"))]

    def against(ours: str, theirs: Sequence[str], form: str) -> str:
        return _spread(ratios(rounds, ours, theirs), form) if own.requirements else "–"

    returns = [r["greedy_return"] for r in record["returns"].get(name, []) if "error" not in r]
    cells = [
        f"{own.title} ({versions})",
        _rate(rounds, cases[0]),
        against(f"{OURS}-1", cases[:1], "{:.2f}"),
        against(f"{OURS}-{TOGETHER}", cases[:1], "{:.1f}"),
        against(f"{ROUNDED}-{TOGETHER}", cases[:1], "{:.1f}"),
        "; ".join(f"{_rate(rounds, case)} ({_words(case)})" for case in together) or "–",
        against(f"{OURS}-{TOGETHER}", cases, "{:.1f}"),
        _spread(values_of(rounds, cases[0], "startup_seconds"), "{:.1f}"),
        "; ".join(f"{statistics.median(values):,.0f}" for values in peaks),
        ", ".join(f"{value:.1f}" for value in returns) or "–",
    ]
    return f"| {' | '.join(cells)} |"


def _rate(rounds: Sequence[dict[str, Any]], case: str) -> str:
    """Returns the steps per second of a case, or the reason why there are none."""
    rates = values_of(rounds, case, "steps_per_second")
    return _spread(rates, "{:,.0f}") if rates else f"fails: {rounds[0][case]['error']}"


def _words(case: str) -> str:
    """Returns how many agents or processes a case has."""
    _, agents, *processes = case.split("-")
    return f"{processes[1]} processes" if processes else f"{agents} agents"


def _spread(values: Sequence[float], form: str) -> str:
    """Formats the median and the range."""
    if not values:
        return "–"
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} ({low}–{high})" if len(values) > 1 else middle


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PEERS), default=list(PEERS), help="peers (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each peer (default: 3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of the timed window of a run (default: 8)")
    parser.add_argument(
        "--processes", type=int, default=1, help="if > 1, also run this many copies of each peer at once"
    )
    parser.add_argument(
        "--returns", type=int, default=0, help="number of seeds with which each peer is evaluated (default: 0)"
    )
    parser.add_argument(
        "--total-steps", type=int, default=20_000, help="environment steps for --returns (default: 20000)"
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "ddpg_jax" / "peers",
                        help="folder for the virtual environments")  # fmt: skip
    parser.add_argument("--torch", default="torch==2.13.0",
                        help='PyTorch for pip, such as "torch --index-url …"; a CPU build is enough')  # fmt: skip
    parser.add_argument("--install-only", action="store_true", help="build the environments and stop")
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json", help="where the record goes")
    return parser.parse_args(arguments)


def prepare(names: Sequence[str], build: Callable[[str], Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """Returns the interpreters of the peers that can be installed, and the reasons why the others cannot."""
    interpreters, failed = {}, {}
    for name in names:
        try:
            interpreters[name] = build(name)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            failed[name] = str(error)
            print(f"{name} {error}", file=sys.stderr)
    return interpreters, failed


def main() -> None:
    """Installs the peers, measures, and writes the record."""
    options = parse()
    interpreters, failed = prepare(options.only, lambda name: install(name, PEERS[name], options.cache, options.torch))
    if options.install_only:
        return
    warn_if_busy()
    load = [load_average()]
    rounds = measure(choose_cases(list(interpreters), options.processes), interpreters, options)
    record = {
        "machine": describe_machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": options.seconds,
        "peers": options.only,
        "failed": failed,
        "rounds": rounds,
        "returns": measure_returns(interpreters, options),
        "load_average": [*load, load_average()],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    if options.out == RESULTS / "peers.json":
        fill_readme("peers", table(record))


if __name__ == "__main__":
    main()
