"""Kills a run at random times, resumes it, and compares it with a run that was not killed.

`python benchmarks/kill_and_resume.py` first trains once without a kill. Then it trains the same run again, ends the
process with SIGKILL at a random time, resumes, kills again, and so on. After five kills the run may finish, and its
metrics, episodes and policies are compared byte for byte with those of the first. Then the next run begins, until there
have been twenty kills. A third of the kills aim at a checkpoint that is being written, and a third at the tables: they
come as soon as a draft of these is seen. The others come at any time from the first chunk on.

The result goes to `benchmarks/results/kill_and_resume.json`, with `--family` to `kill_and_resume_family.json`. The
benchmark takes about four minutes on two cores, with `--family` seven.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "kill_and_resume.json"

REAL = ("--seeds", "8", "--total-steps", "6000", "--eval-every", "50")
"""Flags for the default preset, which trains for about ten seconds, with many evaluations."""

SMALL = (
    "--seeds", "2", "--total-steps", "15000", "--eval-every", "500", "--hidden-sizes", "8", "--batch-size", "8",
    "--replay-capacity", "1000",
)  # fmt: skip
"""Flags for a run that compiles fast."""

FAMILY = (
    "--preset", "td3", "--seeds", "4", "--n-step", "3", "--normalize-observations", "--num-envs", "4",
    "--total-steps", "6000", "--eval-every", "200",
)  # fmt: skip
"""Flags for TD3 with further switches of the family."""

FREQUENT = ("--checkpoint-every", "0.3")
"""Flags for frequent checkpoints."""

AIMS = ("any moment", "a checkpoint", "the tables")

LONGEST_WAIT = 2.0
"""The largest number of seconds of training before a kill at any time."""


@dataclass
class Kill:
    """The state of the run at a kill."""

    aim: str
    hit: str
    """What was being written, judged by the drafts that are left; or "a chunk or an evaluation"."""
    env_steps: int
    """Environment steps in the newest row of the metrics."""
    num_checkpoints: int
    """Checkpoints written so far, by all processes of the run."""


def start(folder: Path, flags: tuple[str, ...]) -> subprocess.Popen:
    """Starts the run, or continues it if it has begun."""
    words = ["--resume", str(folder)] if (folder / "config.json").exists() else ["--out", str(folder), *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "ddpg_jax.run", *words, "--quiet"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def numbers(folder: Path) -> list[int]:
    """Returns the numbers of the checkpoints in the folder."""
    return [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()]


def drafts(folder: Path) -> str:
    """Returns what is being written, judged by the drafts in the folder."""
    if any((folder / f".{name}.part").exists() for name in ("metrics.csv", "episodes.csv")):
        return "the tables"
    if any(True for _ in (folder / "checkpoints").glob(".*.part")):
        return "a checkpoint"
    return "a chunk or an evaluation"


def kill(process: subprocess.Popen, folder: Path, aim: str, generator: random.Random) -> Kill | None:
    """Kills the process at the time that `aim` names; returns None if the process has ended before."""
    before = max(numbers(folder), default=0)
    wait = generator.uniform(0, LONGEST_WAIT)

    def is_training() -> bool:
        return max(numbers(folder), default=0) > before

    while process.poll() is None and not is_training():
        time.sleep(0.002)
    end = time.monotonic() + wait
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    end = time.monotonic() + 3 * LONGEST_WAIT
    while aim != "any moment" and process.poll() is None and drafts(folder) != aim and time.monotonic() < end:
        pass
    process.kill()
    _, errors = process.communicate()
    if process.returncode == 0:
        return None
    if process.returncode != -9:
        raise RuntimeError(f"the run ended with status {process.returncode}: {errors}")
    table = folder / "metrics.csv"
    lines = table.read_text().splitlines()[1:] if table.exists() else []
    return Kill(aim, drafts(folder), int(lines[-1].split(",")[1]) if lines else 0, max(numbers(folder), default=0))


def finish(folder: Path, flags: tuple[str, ...]) -> None:
    """Runs to the end, without a kill."""
    process = start(folder, flags)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with status {process.returncode}: {errors}")


def results(folder: Path) -> dict[str, bytes]:
    """Returns the contents of the files that must be the same."""
    names = ["metrics.csv", "episodes.csv", *(f"policy/{path.name}" for path in sorted((folder / "policy").iterdir()))]
    return {name: (folder / name).read_bytes() for name in names}


def trial(folder: Path, flags: tuple[str, ...], num_kills: int, generator: random.Random) -> list[Kill]:
    """Kills a run `num_kills` times, or fewer if it ends before, and then lets it finish."""
    kills: list[Kill] = []
    while len(kills) < num_kills:
        killed = kill(start(folder, flags), folder, AIMS[len(kills) % 3], generator)
        if killed is None:
            break
        kills.append(killed)
        print(f"  killed after step {killed.env_steps:,}, aimed at {killed.aim}, hit {killed.hit}", flush=True)
    finish(folder, flags)
    return kills


def environment() -> dict[str, Any]:
    """Returns the circumstances of the result."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {"cores": os.cpu_count(), "python": platform.python_version(), "commit": commit.stdout.strip()}


def main() -> int:
    """Kills, resumes and compares; returns 0 if everything was identical."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills in all (default: 20)")
    parser.add_argument("--kills-per-run", type=int, default=5, help="kills per run before it may finish (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times (default: 0)")
    parser.add_argument("--small", action="store_true", help="use small networks, and write no result")
    parser.add_argument("--family", action="store_true", help="train TD3 with further switches instead of DDPG")
    options = parser.parse_args()
    begun, generator = time.perf_counter(), random.Random(options.seed)
    flags = (*(SMALL if options.small else FAMILY if options.family else REAL), *FREQUENT)
    kills: list[Kill] = []
    num_identical = 0
    with tempfile.TemporaryDirectory() as scratch:
        finish(Path(scratch) / "whole", flags)
        expected = results(Path(scratch) / "whole")
        print(f"a run without a kill: {time.perf_counter() - begun:.0f} s", flush=True)
        for index in range(options.kills):  # at most one run per kill
            if len(kills) >= options.kills:
                break
            folder = Path(scratch) / str(index)
            found = trial(folder, flags, min(options.kills_per_run, options.kills - len(kills)), generator)
            identical = results(folder) == expected
            print(
                f"run {index + 1}: killed {len(found)} times, {'identical' if identical else 'DIFFERENT'}", flush=True
            )
            kills += found
            num_identical += len(found) * identical
    seconds = time.perf_counter() - begun
    hits = {hit: sum(killed.hit == hit for killed in kills) for hit in sorted({killed.hit for killed in kills})}
    print(f"hit: {', '.join(f'{hit} {num} times' for hit, num in hits.items())}")
    print(f"{num_identical} of {len(kills)} identical ({seconds:.0f} s)")
    if not options.small:
        content = {"identical": num_identical, "kills": [asdict(killed) for killed in kills], "seconds": seconds}
        file = RESULT.with_stem(f"{RESULT.stem}_family") if options.family else RESULT
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({**environment(), "flags": flags, **content}, indent=1) + "\n")
    return int(not num_identical == len(kills) == options.kills)


if __name__ == "__main__":
    sys.exit(main())
