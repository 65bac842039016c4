"""Measures how long a search takes in one program, and with one process per trial: `python benchmarks/search_time.py`.

Ours is `python -m ddpg_jax.tune`, with an empty cache and without pruning, up to the end of its last trial. The other
is Optuna with Stable-Baselines3 (`peers/sb3_trial.py`), with as many trials side by side as there are cores. A share of
its trials is measured and extrapolated. Writes `results/tuning/time.json` and the table of `docs/tuning.md`; about
seven minutes on two cores, with the installation.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import SB3, Peer, clean_environment, error_line, install
from record import RESULTS, ROOT, begin, fill, make_parser, markdown, write
from tuning import SPACE

from ddpg_jax import PRESETS

PEER = Peer("Stable-Baselines3 and Optuna", "sb3_trial.py", (*SB3, "optuna==5.0.0"))
CONFIG = PRESETS["pendulum"]


def ours(trials: int, seeds: int, scratch: Path) -> float:
    """Returns the seconds from the command to the end of its last trial."""
    command = [sys.executable, "-m", "ddpg_jax.tune", *(f"--tune={name}={values}" for name, values in SPACE.items()),
               f"--trials={trials}", f"--seeds={seeds}", "--pruner=none", "--final-seeds=1",
               f"--out={scratch / 'tune'}"]  # fmt: skip
    environment = clean_environment() | {"XDG_CACHE_HOME": str(scratch / "cache"), "PYTHONPATH": str(ROOT)}
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(error_line(done.stderr))
    return (scratch / "tune/study.log").stat().st_mtime - start  # what comes after it is the comparison


def theirs(python: Path, trials: int, seeds: int, at_once: int, scratch: Path) -> float:
    """Returns the seconds from the start of the first process to the end of the last."""
    command = [str(python), str(ROOT / "benchmarks/peers" / PEER.script), f"--journal={scratch / 'study.log'}",
               f"--seeds={seeds}", f"--steps={CONFIG.total_steps}", f"--eval-every={CONFIG.eval_every}"]  # fmt: skip
    start = time.perf_counter()
    for first in range(0, trials, at_once):
        running = [subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE, text=True)
                   for _ in range(min(at_once, trials - first))]  # fmt: skip
        for process in running:
            message = process.communicate()[1]
            if process.returncode:
                raise SystemExit(error_line(message))
    return time.perf_counter() - start


def table(record: dict[str, Any]) -> str:
    """Returns the record as Markdown."""
    factor = record["trials"] / record["share"]
    extrapolated = record["theirs_seconds"] * factor
    rows = [
        ("`ddpg_jax.tune`, one program", f"{record['ours_seconds']:.0f} s", ""),
        (PEER.title, f"{extrapolated:,.0f} s", f"{record['share']} trials took {record['theirs_seconds']:.0f} s"),
        ("ratio", f"{extrapolated / record['ours_seconds']:.0f}", ""),
    ]
    return markdown((f"{record['trials']} trials x {record['seeds']} seeds", "wall clock", "extrapolated from"), rows)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=64, help="of the search (default: 64)")
    parser.add_argument("--seeds", type=int, default=4, help="agents of each trial (default: 4)")
    parser.add_argument("--share", type=int, default=4, help="trials of Stable-Baselines3 that run (default: 4)")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ddpg_jax/peers", help="environments")
    parser.add_argument("--torch", default="torch==2.13.0", help='PyTorch for pip, such as "torch --index-url …"')
    options = parser.parse_args()
    python, at_once = install("sb3_trial", PEER, options.cache, options.torch), len(os.sched_getaffinity(0))
    record = begin() | {"trials": options.trials, "seeds": options.seeds, "share": options.share, "at_once": at_once}
    with tempfile.TemporaryDirectory() as scratch:
        record["ours_seconds"] = round(ours(options.trials, options.seeds, Path(scratch)), 1)
        record["theirs_seconds"] = round(theirs(python, options.share, options.seeds, at_once, Path(scratch)), 1)
    write(RESULTS / "tuning/time.json", record)
    fill("tuning.md", "time", table(record))


if __name__ == "__main__":
    main()
