"""`python -m ddpg_jax.run`: trains many agents and leaves a run folder."""

import inspect
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

_STARTED = time.perf_counter()

if __name__ == "__main__":  # until `main` listens for it, Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ddpg_jax import command_line
from ddpg_jax.axes import COMMON
from ddpg_jax.command_line import Flag, flags_of, refuse
from ddpg_jax.config import ANNOTATIONS, SECTIONS, Config
from ddpg_jax.fields import FOLDER, checked, count
from ddpg_jax.options import MAX_AGENTS, TrainOptions, require_equal
from ddpg_jax.presets import SOURCES, preset, tuning_note
from ddpg_jax.sweep import as_swept, expand, preset_of
from ddpg_jax.training.output import ignore_broken_pipe
from ddpg_jax.training.signals import StopSignals

if TYPE_CHECKING:
    from ddpg_jax.training.plan import Plan
    from ddpg_jax.training.result import Result
    from ddpg_jax.training.run_folder import RunFolder

PROGRAM = "python -m ddpg_jax.run"


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Trains independent DDPG agents in one compiled program, and leaves a run folder with tables, curves and policies.

    The defaults shown are those of the preset: `--preset keras --help` shows the Keras tutorial's.
    """

    preset: str = "pendulum"
    config: Path | None = None
    """JSON file with fields of a configuration, which take a preset's place (default: none)."""
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
    """Returns the values that a command line gives; its help shows the defaults of the preset or file that it names.

    Raises ValueError for an option that is unknown, and for the help of a preset or file that cannot be used.
    """
    others = [word for word in arguments if word not in ("-h", "--help")]
    base = _base(read(others, cls, program) if len(others) < len(arguments) else {})
    defaults = cls(swept=as_swept(base), preset=preset_of(base))
    flags = flags_of(cls, {"preset": "Run", "sweep": "Sweep", "per_task": "Cluster"}, defaults)
    resume = [RESUME] if cls is Options else []
    flags = [*flags[:1], *resume, *flags[1:], *flags_of(Config, SECTIONS, base)]
    listed = "\n".join(f"  {name}: {source}" for name, source in SOURCES.items())
    return command_line.read(flags, arguments, program, f"{inspect.cleandoc(cls.__doc__ or '')}\n\nPresets:\n{listed}")


def _base(given: dict[str, Any]) -> Config:
    """Returns the configuration that the other options change: that of a file, or a preset."""
    path = checked("config", given.get("config"), Path | None)
    if path is None:
        return preset(given.get("preset", "pendulum"))
    for other in ("preset", "resume"):
        if given.get(other) is not None:
            raise ValueError(f"config is {path}, but must not be given with {other}")
    return Config.from_json(path)


def make_options(given: dict[str, Any], cls: type[OptionsT]) -> OptionsT:
    """Returns the options that `read` has read, checked, with the configurations that they result in.

    A ValueError names the option, its value and the rule.
    """
    fields = {name: value for name, value in given.items() if name in ANNOTATIONS}
    own = {name: value for name, value in given.items() if name not in ANNOTATIONS and name != "resume"}
    base = _base(given)
    if given.get("resume") is not None:
        return _resumed(checked("resume", given["resume"], RESUME.annotation), fields, own, cls)
    return _expanded(cls(swept=as_swept(base.replace(**fields)), **{"preset": preset_of(base)} | own), fields)


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
    names = ("preset", "seed", "group_size", "checkpoint_every", "log")
    try:
        earlier = cls(swept=swept_configs(saved), seeds=range(*saved["seeds"]), out=folder, resume=True,
                      **{name: saved[name] for name in names if name in saved})  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read: {error}") from None
    require_equal("preset", own.get("preset", earlier.preset), earlier.preset, folder)
    swept = tuple(each._replace(config=each.config.replace(**fields)) for each in earlier.swept)
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
        return execute(options, words)
    except ValueError as error:
        refuse(str(error), PROGRAM)


def execute(options: Options, words: Sequence[str]) -> int:
    """Trains what the options of a command line say, or prints the plan; returns the exit status.

    Raises ValueError if the run is not possible; nothing has been left behind.
    """
    with StopSignals(ends_process=True) as stop:
        # JAX is imported from here on, so that a mistake in the options is told at once.
        from ddpg_jax.training import devices
        from ddpg_jax.training.plan import make_plan
        from ddpg_jax.training.run_folder import fresh_folder

        devices.use_all_cores(options.devices)
        devices.use_compilation_cache()
        devices.require_platform()
        # A cache on a full or read-only disk, or an entry that a kill has cut short, costs time, no more.
        warnings.filterwarnings("ignore", message="Error .* persistent compilation cache entry")
        with devices.pinned_jax_config():
            plan = make_plan(replace(options, out=options.out or fresh_folder(options)))
            if not options.plan:
                return _train(plan, options, words, stop)
            print(*plan.lines(), *plan.memory_lines(), sep="\n")
            return 0


def _train(plan: "Plan", options: Options, words: Sequence[str], stop: StopSignals) -> int:
    """Trains, and shows the result; returns the exit status."""
    import jax

    from ddpg_jax.training.devices import unused_gpu
    from ddpg_jax.training.progress import make_progress
    from ddpg_jax.training.run import EnvironmentFailedError, train_agents
    from ddpg_jax.training.stopwatch import Stopwatch

    total_steps, verbose = plan.num_agents * plan.config.total_steps, options.verbose
    progress = make_progress(not options.quiet, total_steps, plan.num_agents, verbose=verbose)
    notes = (unused_gpu(plan.setups[0].placement.platform), tuning_note(options.preset, plan.config))
    for line in (*plan.lines(), *(f"note: {note}" for note in notes if note)):
        progress.message(line)
    folders: list[RunFolder] = []

    def advice() -> str:
        """Returns the last words of a process that is ended at once."""
        if folders and not (folders[0].path / "config.json").exists():
            folders[0].leave()
        if not folders or not folders[0].path.exists():
            return "nothing has been written"
        resume = [sys.orig_argv[0], "-m", "ddpg_jax.run", "--resume", str(folders[0].path)]
        return f"resume with: {shlex.join(resume)}"

    stop.advice = advice
    command = [Path(sys.executable).name, "-m", "ddpg_jax.run", *words]
    watch = Stopwatch(started=_STARTED)
    try:
        result = train_agents(plan, stop=stop, progress=progress, command=command, opened=folders.append, watch=watch)
    except ValueError as error:
        if _is_refusal(error):
            raise
        raise RuntimeError(f"training has failed; {advice()}") from error
    except (OSError, MemoryError, jax.errors.JaxRuntimeError, EnvironmentFailedError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "there is not enough memory"
        print(f"error: {reason}; {advice()}", file=sys.stderr)
        return 1
    if not result.summary.complete:
        number = stop.number or signal.SIGTERM
        step = f"{result.history.env_steps:,}"
        print(f"stopped by {signal.Signals(number).name} at step {step}; {advice()}", file=sys.stderr)
        return 128 + number
    if not options.quiet:
        _show(result)
    return _status(result, options.fail_on_divergence)


def _is_refusal(error: ValueError) -> bool:
    """Returns whether a check of this package has raised an error, and not a library or the user's own code."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return str(innermost.f_globals.get("__name__")).startswith("ddpg_jax.")


def _show(result: "Result") -> None:
    """Prints the result as tables."""
    from rich.console import Console

    from ddpg_jax.results import console

    screen = Console(soft_wrap=True, highlight=False, markup=False, emoji=False, force_terminal=sys.stdout.isatty())
    if result.summary.configs:
        screen.print(console.ranking_table(result.summary), console.conclusion(result.summary), sep="\n")
    screen.print(console.result_table(result.summary, str(result.folder)))
    screen.print(f"see the agents act: {shlex.join(['python', '-m', 'ddpg_jax.render', str(result.folder)])}")


def _status(result: "Result", fail_on_divergence: bool) -> int:
    """Returns the exit status of a finished run; where diverged agents make it 1, prints a line that says so."""
    diverged, num_agents = result.summary.diverged, result.summary.num_agents
    if not diverged or (len(diverged) < num_agents and not fail_on_divergence):
        return 0
    named = ", ".join(f"{agent} at step {step:,}" for agent, step in diverged.items())
    print(f"error: {len(diverged)} of {num_agents} agents diverged: {named}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
