"""`python -m ddpg_jax.merge FOLDER … --out ALL`: makes one run folder of runs with different seeds."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.fields import FOLDER
from ddpg_jax.training.output import ignore_broken_pipe

if TYPE_CHECKING:
    from ddpg_jax.training.result import Result


@dataclass(frozen=True)
class Options:
    """Joins finished runs of the same configurations with different seeds: tables, policies, statistics and report are
    those of one run of all seeds.
    """

    runs: Annotated[tuple[Path, ...], POSITIONAL]
    """Run folders, whose seeds together are a range without gaps."""
    out: Annotated[Path, FOLDER]
    """The run folder to write, new or empty."""


def merge_folders(folders: Sequence[Path], out: Path) -> "Result":
    """Joins the runs in some folders into a new one, and prints the main result; raises ValueError or OSError."""
    from ddpg_jax.results.console import headline  # JAX is imported from here on
    from ddpg_jax.training.merging import merge, merge_snapshots
    from ddpg_jax.training.result import load

    results = [load(folder) for folder in folders]
    merged = merge(results).save(out)
    merge_snapshots(results, merged, out)
    print(f"{out}: {merged.summary.num_agents:,} agents; {headline(merged.summary)}")
    return merged


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.merge")
    try:
        merge_folders(options.runs, options.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
