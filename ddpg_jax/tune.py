"""`python -m ddpg_jax.tune`: searches for hyperparameters."""

import dataclasses
import inspect
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from ddpg_jax.command_line import Flag, flags_of, keep_callable, read, refuse
from ddpg_jax.config import ANNOTATIONS, SECTIONS, Config
from ddpg_jax.fields import FOLDER, checked
from ddpg_jax.presets import PRESETS, preset
from ddpg_jax.search.options import TuneOptions, saved_options
from ddpg_jax.training.output import ignore_broken_pipe
from ddpg_jax.training.signals import StopSignals

PROGRAM = "python -m ddpg_jax.tune"

_TEXT = "Folder of a search to resume, with its saved options. A larger --trials extends it."
RESUME = Flag("resume", Annotated[Path | None, FOLDER], _TEXT, None, "Search")
QUIET = Flag("quiet", bool, "Print only the result and errors.", False, "Search")


def read_options(words: Sequence[str]) -> tuple[TuneOptions, bool, bool]:
    """Returns the options of a command line, and whether it resumes a search, and is quiet.

    Raises:
        ValueError: names an option, its value and the rule.
    """
    flags = [*flags_of(TuneOptions, {"preset": "Search"}), RESUME, QUIET]
    flags += flags_of(Config, SECTIONS, PRESETS["pendulum"])
    given = read(flags, words, PROGRAM, inspect.cleandoc(TuneOptions.__doc__ or ""))
    resume, quiet = given.pop("resume", None), given.pop("quiet", False)
    fields = {name: given.pop(name) for name in [*given] if name in ANNOTATIONS}
    if resume is not None:
        folder = checked("resume", resume, RESUME.annotation)
        earlier, _ = saved_options(folder)
        return dataclasses.replace(earlier, config=earlier.config.replace(**fields), **given), True, quiet
    config = preset(given.get("preset", "pendulum")).replace(**fields)
    return TuneOptions(config=config, **{"tune": ()} | given), False, quiet


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options, resume, quiet = read_options(words)
        with StopSignals(ends_process=True) as stop:
            # JAX and Optuna are imported from here on, so that a mistake in the options is told at once.
            return _run(options, resume, quiet, stop)
    except ValueError as error:
        refuse(str(error), PROGRAM)


def _run(options: TuneOptions, resume: bool, quiet: bool, stop: StopSignals) -> int:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ValueError("optuna is not installed, but must be for a search: pip install 'ddpg_jax[tune]'") from None
    from rich.console import Console

    from ddpg_jax.environments.host import HostEnvFailure
    from ddpg_jax.search.batch import SearchFailedError
    from ddpg_jax.search.tuning import run_search
    from ddpg_jax.training import devices
    from ddpg_jax.training.run import EnvironmentFailedError
    from ddpg_jax.training.run_folder import fresh_folder

    devices.use_all_cores(options.devices)
    devices.use_compilation_cache()
    devices.require_platform()
    folder = options.out or fresh_folder(options.train_options([options.config]))
    options = dataclasses.replace(options, out=folder)
    how = f"resume with: {shlex.join([sys.orig_argv[0], '-m', 'ddpg_jax.tune', '--resume', str(folder)])}"
    stop.advice = lambda: how if (folder / "tune.json").exists() else "nothing has been written"
    try:
        tuning = run_search(options, resume=resume, progress=not quiet)
    except (OSError, MemoryError, HostEnvFailure, EnvironmentFailedError, SearchFailedError) as error:
        print(f"error: {error}; {stop.advice()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {how}", file=sys.stderr)
        return 130
    screen = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    screen.print(tuning.comparison.table(), tuning.conclusion(), f"the best configuration: {folder}/best.json",
                 f"the page of the search: {folder}/report.html", sep="\n")  # fmt: skip
    return 0


keep_callable(__name__, "ddpg_jax.search.tuning")


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
