"""`python -m ddpg_jax.compare RUN RUN …`: a table and a figure from the folders of finished runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ddpg_jax.command_line import POSITIONAL, keep_callable, parse, refuse
from ddpg_jax.fields import check_fields

PROGRAM = "python -m ddpg_jax.compare"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compares finished runs, and the configurations of sweeps: interquartile means, probability of improvement over
    the first run, differences in pairs of equal seeds, steps until the task is solved.
    """

    runs: Annotated[tuple[Path, ...], POSITIONAL]
    """Run folders; the others are compared with the first."""
    threshold: float | None = None
    """Evaluation return that counts as reached (default: the return at which the task is solved, if it defines one)."""
    figure: Path = Path("comparison.png")
    """File of the figure: .png, .pdf or .svg."""
    overwrite: bool = False
    """Replace the figure if the file exists."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.figure.suffix not in (".png", ".pdf", ".svg"):
            raise ValueError(f"figure is {self.figure}, but must be a file *.png, *.pdf or *.svg")
        if self.figure.exists() and not self.overwrite:
            raise ValueError(f"figure is {self.figure}, but must be a new file, unless --overwrite is given")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, PROGRAM)
    from ddpg_jax import api  # here, so that `--help` need not wait for JAX

    try:
        comparison = api.compare(*options.runs, threshold=options.threshold)
        comparison.plot().savefig(options.figure)
    except ValueError as error:
        refuse(str(error), PROGRAM)
    except OSError as error:
        refuse(f"figure is {options.figure}, but must be a file that can be written: {error.strerror}", PROGRAM)
    from rich.console import Console

    Console(markup=False, emoji=False, highlight=False).print(comparison.table())
    print(f"figure: {options.figure}")
    return 0


keep_callable(__name__, "ddpg_jax.api")


if __name__ == "__main__":
    from ddpg_jax.training.output import ignore_broken_pipe

    ignore_broken_pipe()
    sys.exit(main())
