"""`python -m ddpg_jax.run`: trains many agents and leaves a run folder."""

import inspect
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

_STARTED = time.perf_counter()

if __name__ == "__main__":  # until `main` listens for it, Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ddpg_jax import command_line
from ddpg_jax.command_line import Flag, flags_of, refuse
from ddpg_jax.config import ANNOTATIONS, SECTIONS, Config
from ddpg_jax.fields import FOLDER, checked, count
from ddpg_jax.options import MAX_AGENTS, TrainOptions, require_equal
from ddpg_jax.presets import SOURCES, preset
from ddpg_jax.sweep import COMMON, SweptConfig, as_swept, expand
from ddpg_jax.training.command import run_command
from ddpg_jax.training.output import ignore_broken_pipe

PROGRAM = "python -m ddpg_jax.run"


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Trains independent DDPG agents in one compiled program, and leaves a run folder with tables, curves and policies.

    The defaults shown are those of the preset: `--preset keras --help` shows the Keras tutorial's.
    """

    preset: str = "pendulum"
    fail_on_divergence: bool = False
    """End with status 1 if any agent diverges; without it, only if all do."""
    plan: bool = False
    """Print what the run holds and needs in memory, and exit."""
    list_environments: bool = False
    """Print the environments that --env-id can name here, with their sizes, and exit."""
    quiet: bool = False
    """Print only errors."""
    sweep: tuple[str, ...] = ()
    """FIELD=VALUE,VALUE,...: train every combination of values across all --sweep options, each with all seeds. With
    --samples, values may be drawn: FIELD=loguniform:LOW,HIGH or FIELD=uniform:LOW,HIGH. Sizes are written 64x64. FIELD
    may be preset."""
    samples: Annotated[int | None, count(1, MAX_AGENTS)] = None
    """Number of configurations to draw at random from the sweeps (default: the whole grid)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is not None and not self.sweep:
            raise ValueError(f"samples is {self.samples}, but must not be given without sweep")


OptionsT = TypeVar("OptionsT", bound=Options)

RESUME = Flag("resume", Annotated[Path | None, FOLDER],
              "Run folder to resume, with its saved configuration. A larger --total-steps extends the run.",
              None, "Run")  # fmt: skip


def read(arguments: Sequence[str], cls: type[Options] = Options, program: str = PROGRAM) -> dict[str, Any]:
    """Returns the values that a command line gives; its help shows the defaults of the preset that it names.

    Raises:
        ValueError: names an option that is unknown, or the preset.
    """
    others = [word for word in arguments if word not in ("-h", "--help")]
    name = read(others, cls, program).get("preset", "pendulum") if len(others) < len(arguments) else "pendulum"
    defaults = cls(swept=as_swept(name), preset=name)
    flags = flags_of(cls, {"preset": "Run", "sweep": "Sweep", "per_task": "Cluster"}, defaults)
    resume = [RESUME] if cls is Options else []
    flags = [*flags[:1], *resume, *flags[1:], *flags_of(Config, SECTIONS, defaults.swept[0].config)]
    listed = "\n".join(f"  {name}: {source}" for name, source in SOURCES.items())
    return command_line.read(flags, arguments, program, f"{inspect.cleandoc(cls.__doc__ or '')}\n\nPresets:\n{listed}")


def make_options(given: dict[str, Any], cls: type[OptionsT]) -> OptionsT:
    """Returns the options that `read` has read, checked, with the configurations that they result in.

    Raises:
        ValueError: names the option, its value and the rule.
    """
    fields = {name: value for name, value in given.items() if name in ANNOTATIONS}
    own = {name: value for name, value in given.items() if name not in ANNOTATIONS and name != "resume"}
    if given.get("resume") is not None:
        return _resumed(checked("resume", given["resume"], RESUME.annotation), fields, own, cls)
    config = preset(given.get("preset", "pendulum")).replace(**fields)
    return _expanded(cls(swept=as_swept(config), **own), fields)


def _expanded(options: OptionsT, fields: Iterable[str]) -> OptionsT:
    """Returns the options with the configurations of their sweep, which share the given fields and the common ones."""
    base = options.swept[0].config
    kept = {name: getattr(base, name) for name in {*fields, *COMMON}}

    def make_config(values: dict[str, Any]) -> Config:
        changes = {name: value for name, value in values.items() if name != "preset"}
        return (preset(values["preset"]).replace(**kept) if "preset" in values else base).replace(**changes)

    return replace(options, swept=expand(options.sweep, options.samples, options.seed, make_config))


def _resumed(folder: Path, fields: dict[str, Any], own: dict[str, Any], cls: type[OptionsT]) -> OptionsT:
    """Returns the options of an earlier run with those that are given, which may change only some."""
    from ddpg_jax.training.run_folder import read_config, swept_configs  # here, so that `--help` need not wait for JAX

    saved = read_config(folder)
    names = ("preset", "seed", "group_size", "checkpoint_every", "record_every", "log")
    try:
        earlier = cls(swept=swept_configs(saved), seeds=range(*saved["seeds"]), out=folder, resume=True,
                      **{name: saved[name] for name in names if name in saved})  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read: {error}") from None
    require_equal("preset", own.get("preset", earlier.preset), earlier.preset, folder)
    swept = tuple(SweptConfig(each.values, each.config.replace(**fields)) for each in earlier.swept)
    options = replace(earlier, swept=swept, **own)
    options = _expanded(options, fields) if options.sweep else options
    options.require_same_run(earlier)
    return options


def parse(arguments: Sequence[str]) -> Options:
    """Returns the options of a command line; on bad input prints a line and ends the process with status 2."""
    try:
        return make_options(read(arguments), Options)
    except ValueError as error:
        refuse(str(error), PROGRAM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(words)
    if options.list_environments:
        from ddpg_jax.environments import registry

        print(*registry.listed(), sep="\n", flush=True)
        return 0
    try:
        return run_command(options, words, started=_STARTED, plan_only=options.plan, quiet=options.quiet,
                           fail_on_divergence=options.fail_on_divergence)  # fmt: skip
    except ValueError as error:
        refuse(str(error), PROGRAM)


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
