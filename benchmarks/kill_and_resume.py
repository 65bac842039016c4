"""Kills a run at random times, resumes it, and compares it with a run that was not killed.

`python benchmarks/kill_and_resume.py` first trains once without a kill. Then it trains the same run again, ends the
process with SIGKILL, resumes, kills again, and so on. After five kills the run may finish, and its metrics, episodes
and policies are compared byte for byte with those of the first, until there have been twenty kills. A third of the
kills come while a checkpoint is being written, a third while the tables are, and the others at any time. Writes
`results/kill_and_resume_<run>.json`. Takes about five minutes on two cores.
"""

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import RESULTS, ROOT, begin, make_parser, write

RUNS = {
    "ddpg": ("--seeds", "8", "--total-steps", "6000", "--eval-every", "50"),
    "family": (
        *("--preset", "td3", "--seeds", "4", "--n-step", "3", "--normalize-observations", "--num-envs", "4"),
        *("--total-steps", "6000", "--eval-every", "200"),
    ),
    "simba": (
        *("--preset", "simba", "--seeds", "4", "--hidden-sizes", "16", "--critic-hidden-sizes", "32", "32"),
        *("--n-step", "3", "--batch-size", "32", "--total-steps", "6000", "--eval-every", "200"),
    ),
    "small": (
        *("--seeds", "2", "--total-steps", "40000", "--eval-every", "500", "--hidden-sizes", "8"),
        *("--batch-size", "8", "--replay-capacity", "1000"),
    ),
}
"""Flags of the runs: DDPG with many evaluations; TD3 with more switches; residual blocks with decoupled L2
and normalised observations; a run that compiles fast, of which no result is kept."""

AIMS = ("any moment", "a checkpoint", "the tables")
LONGEST_WAIT = 2.0
"""The largest number of seconds of training before a kill at any moment."""


def start(folder: Path, flags: tuple[str, ...]) -> subprocess.Popen[str]:
    """Starts the run, or continues it if it has begun."""
    words = ["--resume", str(folder)] if (folder / "config.json").exists() else ["--out", str(folder), *flags]
    command = [sys.executable, "-m", "ddpg_jax.run", *words, "--checkpoint-every", "0.3", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def newest_checkpoint(folder: Path) -> int:
    """Returns the number of the newest checkpoint; 0 if there is none."""
    files = (folder / "checkpoints").glob("*.safetensors")
    return max((int(path.stem) for path in files if path.stem.isdecimal()), default=0)


def being_written(folder: Path) -> str:
    """Returns what is being written, judged by the drafts in the folder."""
    if any((folder / f".{name}.part").exists() for name in ("metrics.csv", "episodes.csv")):
        return "the tables"
    return "a checkpoint" if any((folder / "checkpoints").glob(".*.part")) else "a chunk or an evaluation"


def wait_while(process: subprocess.Popen[str], seconds: float, condition: Any) -> None:
    """Waits while the process runs and the condition holds, for this time at most."""
    end = time.monotonic() + seconds
    while process.poll() is None and condition() and time.monotonic() < end:
        time.sleep(0.0005)


def kill(process: subprocess.Popen[str], folder: Path, aim: str, generator: random.Random) -> dict[str, Any] | None:
    """Kills the process at the time that `aim` names; returns None if the process has ended before."""
    before = newest_checkpoint(folder)
    wait_while(process, 600, lambda: newest_checkpoint(folder) == before)  # it trains
    wait_while(process, generator.uniform(0, LONGEST_WAIT), lambda: True)
    if aim != "any moment":
        wait_while(process, 3 * LONGEST_WAIT, lambda: being_written(folder) != aim)
    process.kill()
    _, errors = process.communicate()
    if process.returncode == 0:
        return None
    if process.returncode != -9:
        raise RuntimeError(f"the run ended with status {process.returncode}: {errors}")
    return {"aim": aim, "hit": being_written(folder), "num_checkpoints": newest_checkpoint(folder)}


def finish(folder: Path, flags: tuple[str, ...]) -> dict[str, bytes]:
    """Runs to the end without a kill; returns the contents of the files that must be the same."""
    process = start(folder, flags)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with status {process.returncode}: {errors}")
    files = [folder / "metrics.csv", folder / "episodes.csv", *sorted((folder / "policy").iterdir())]
    return {path.name: path.read_bytes() for path in files}


def main() -> int:
    """Kills, resumes and compares; returns 0 if everything was identical."""
    parser = make_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills in all (default: 20)")
    parser.add_argument("--kills-per-run", type=int, default=5, help="kills per run before it may finish (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times (default: 0)")
    parser.add_argument("--run", choices=list(RUNS), default="ddpg", help="what is trained (default: ddpg)")
    options = parser.parse_args()
    record, begun, generator = begin(), time.perf_counter(), random.Random(options.seed)
    kills: list[dict[str, Any]] = []
    aims = itertools.cycle(AIMS)
    with tempfile.TemporaryDirectory() as scratch:
        expected = finish(Path(scratch) / "whole", RUNS[options.run])
        while len(kills) < options.kills:  # a run may end before it is killed as often as it should be
            folder, found = Path(tempfile.mkdtemp(dir=scratch)), []
            for aim in itertools.islice(aims, min(options.kills_per_run, options.kills - len(kills))):
                killed = kill(start(folder, RUNS[options.run]), folder, aim, generator)
                if killed is None:
                    break
                found.append(killed)
                print(f"  killed: aimed at {aim}, hit {killed['hit']}", flush=True)
            identical = finish(folder, RUNS[options.run]) == expected
            kills += [{**killed, "identical": identical} for killed in found]
            print(f"run: {len(found)} kills, {'identical' if identical else 'DIFFERENT'}", flush=True)
    num_identical, seconds = sum(killed["identical"] for killed in kills), time.perf_counter() - begun
    print(f"{num_identical} of {len(kills)} identical ({seconds:.0f} s)")
    if options.run != "small":
        record |= {"flags": RUNS[options.run], "identical": num_identical, "kills": kills, "seconds": seconds}
        write(RESULTS / f"kill_and_resume_{options.run}.json", record)
    return int(not num_identical == len(kills) == options.kills)


if __name__ == "__main__":
    sys.exit(main())
