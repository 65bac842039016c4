"""`python -m ddpg_jax.compare RUN RUN …`: a table and a figure from the folders of any number of finished runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.processes.output import endure
from ddpg_jax.results.comparison import Row, Run, compare, draw, read_runs, run_of, table
from ddpg_jax.results.plots import own_style

__all__ = ["Row", "Run", "compare", "draw", "read_runs", "run_of", "table"]


@dataclass(frozen=True)
class Options:
    """Compares finished runs, and the points of sweeps: interquartile means, probability of improvement over the first
    run, steps until the task is solved.
    """

    runs: Annotated[tuple[Path, ...], POSITIONAL]
    """Run folders; the others are compared with the first."""
    threshold: float | None = None
    """Evaluation return that counts as reached; None: the return at which the task is solved, if it defines one."""
    figure: Path | None = None
    """File of the figure; None: comparison.png in the present folder."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.compare")
    figure = options.figure or Path("comparison.png")
    try:
        if not options.runs:
            raise ValueError("runs is empty, but must name at least one run folder")
        runs = [run for folder in options.runs for run in read_runs(folder)]
        env_ids = sorted({run.env_id for run in runs})
        if len(env_ids) > 1:
            raise ValueError(f"runs are on {', '.join(env_ids)}, but must be on the same environment")
        threshold = runs[0].threshold if options.threshold is None else options.threshold
        if threshold is not None and not np.isfinite(threshold):
            raise ValueError(f"threshold is {threshold}, but must be a finite number")
        if figure.suffix not in (".png", ".pdf", ".svg"):
            raise ValueError(f"figure is {figure}, but must be a file *.png, *.pdf or *.svg")
        with own_style():
            draw(runs, threshold).savefig(figure)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: figure is {figure}, but must be a file that can be written: {error.strerror}", file=sys.stderr)
        return 2
    from rich.console import Console

    Console(markup=False, emoji=False).print(table(compare(runs, threshold), threshold))
    print(f"figure: {figure}")
    return 0


if __name__ == "__main__":
    endure()
    sys.exit(main())
