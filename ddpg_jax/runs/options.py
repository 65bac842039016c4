"""The options of a run: from a command line, or from the folder of an earlier run."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ddpg_jax import presets
from ddpg_jax.command_line import REPEATED, flags_of, read
from ddpg_jax.config import ANNOTATIONS, SECTIONS, Config
from ddpg_jax.domains import FOLDER, SECONDS, Domain, annotations, check, count, descriptions
from ddpg_jax.presets import PRESETS
from ddpg_jax.processes.devices import devices_each
from ddpg_jax.runs.sweep import COMMON, Point, make_points

PROGRAM = "python -m ddpg_jax.run"

MAX_AGENTS = 1_000_000
"""The largest number of agents in a run."""

ADDRESS = Domain("HOST:PORT", lambda v: v.rpartition(":")[0] != "" and v.rpartition(":")[2].isdecimal()
                 and 0 < int(v.rpartition(":")[2]) < 65536)  # fmt: skip
PRESET = Domain(f"one of {', '.join(PRESETS)}", lambda v: v in PRESETS)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Trains independent DDPG agents in one compiled program, and leaves a run folder with tables, curves and policies.

    The defaults shown are those of the preset: `--preset keras --help` shows the Keras tutorial's.
    """

    preset: Annotated[str, PRESET] = "pendulum"
    """Named configuration from which all defaults come."""
    seeds: Annotated[int, count(1, MAX_AGENTS)] = 32
    """Number of agents; in a sweep, number of agents per point."""
    seed: Annotated[int, count(0)] = 0
    """Root seed. The key of agent i is the root key with i folded in."""
    out: Annotated[Path | None, FOLDER] = None
    """The run folder, new or empty; None: runs/<time>-<preset>-<environment>."""
    devices: Annotated[int | None, count(1, 1024)] = None
    """Total number of devices of all processes; None: all accelerators, or a core per agent."""
    group_size: Annotated[int | None, count(1, MAX_AGENTS)] = None
    """Agents that advance together on a device; None: 1 on a CPU (in Gymnasium 4), up to 256 elsewhere."""
    checkpoint_every: Annotated[float | None, SECONDS] = None
    """Seconds between checkpoints; None: 60, or longer where they would cost more than 5% of the run."""
    resume: Annotated[Path | None, FOLDER] = None
    """Run folder to resume, with its saved configuration. A larger --total-steps extends the run."""
    checkpoint: Annotated[int | None, count(1)] = None
    """Number of the checkpoint to resume from; None: the newest."""
    record_every: Annotated[int | None, count(1)] = None
    """Record every n-th training episode of each agent in rollouts/; None: record none."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log evaluations to TensorBoard (in the run folder) or W&B (configured by its WANDB_* variables)."""
    fail_on_divergence: bool = False
    """End with status 1 if any agent's numbers are no longer finite, instead of only if all agents' are."""
    plan: bool = False
    """Print the memory and time that the run would need, and how many agents would train at once, and exit."""
    list_environments: bool = False
    """Print the environments that --env-id can name here, with their sizes, and exit."""
    quiet: bool = False
    """Print only errors."""
    verbose: bool = False
    """Print a line for every training episode."""
    sweep: Annotated[tuple[str, ...], REPEATED] = ()
    """FIELD=VALUE,VALUE,...: train every combination of values across all --sweep options, each with all seeds. With
    --samples, values may be drawn: FIELD=loguniform:LOW,HIGH or FIELD=uniform:LOW,HIGH. Sizes are written 64x64. FIELD
    may be preset."""
    samples: Annotated[int | None, count(1, MAX_AGENTS)] = None
    """Number of points to draw at random from the sweeps; None: the whole grid."""
    distributed: bool = False
    """Train with several processes. Set --coordinator, --num-processes and --process-id; without them JAX detects the
    cluster (for example SLURM). With only --num-processes, all processes are started on this machine."""
    coordinator: Annotated[str | None, ADDRESS] = None
    """Address of the first process, which all others must reach."""
    num_processes: Annotated[int | None, count(1, 100_000)] = None
    """Number of processes in all."""
    process_id: Annotated[int | None, count(0, 99_999)] = None
    """Number of this process, from 0."""
    config: Config = PRESETS["pendulum"]
    points: tuple[Point, ...] = ()
    earlier_devices: int | None = None

    def __post_init__(self) -> None:
        for name, annotation in OPTION_ANNOTATIONS.items():
            object.__setattr__(self, name, check(name, getattr(self, name), annotation))
        if not self.points:
            object.__setattr__(self, "points", (Point((), self.config),))
        self._check_resuming()
        self._check_processes()

    @property
    def num_agents(self) -> int:
        """The number of all agents. Agent a is seed a mod `seeds` of point a div `seeds`."""
        return len(self.points) * self.seeds

    def _check_resuming(self) -> None:
        if self.checkpoint is not None and self.resume is None:
            raise ValueError(f"checkpoint is {self.checkpoint}, but can only be given with resume")
        if self.samples is not None and not self.sweep:
            raise ValueError(f"samples is {self.samples}, but must not be given without sweep")

    def _check_processes(self) -> None:
        """Refuses options that do not say which processes a run has."""
        for name in ("coordinator", "num_processes", "process_id"):
            if getattr(self, name) is not None and not self.distributed:
                raise ValueError(f"{name} is {getattr(self, name)}, but must not be given without distributed")
        index, size = self.process_id, self.num_processes
        if index is not None and self.coordinator is None:
            raise ValueError(f"process_id is {index}, but must be given with coordinator, which it joins")
        if index is not None and size is not None and index >= size:
            raise ValueError(f"process_id is {index}, but must be less than num_processes, {size}")
        devices_each(self.devices, None, size or 1)


OPTION_ANNOTATIONS = {name: hint for name, hint in annotations(Options).items()
                      if name not in ("config", "points", "earlier_devices")}  # fmt: skip

KEPT_ONLY_IF_GIVEN = {"resume", "checkpoint", "quiet", "verbose", "plan", "list_environments", "devices",
                      "distributed", "coordinator", "num_processes", "process_id"}  # fmt: skip
"""Options of a resumed run that the run itself does not decide."""

REMEMBERED = ("checkpoint_every", "record_every", "fail_on_divergence", "sweep", "samples", "log")
"""Options that a resumed run takes over, in addition to those that make it the run that it is."""

CHANGEABLE = {*KEPT_ONLY_IF_GIVEN, "checkpoint_every", "record_every", "fail_on_divergence", "log", "total_steps"}
"""Options that a resumed run may change; the others would make it another run."""


def from_command_line(arguments: Sequence[str]) -> Options:
    """Returns the options that a command line gives; after `--help` the process ends with status 0.

    Raises:
        ValueError: names the option, its value and the rule.
    """
    given = _read_flags(arguments, Options())
    if given.get("resume") is not None:
        return _resumed(earlier_options(given["resume"]), given)
    base = _with_preset(given.get("preset", Options.preset))
    options, fields = _divide(given)
    config = base.config.replace(**fields)
    points = _expand(given, Options(**options, config=config))
    return Options(**options, config=config, points=points)


def _read_flags(arguments: Sequence[str], defaults: Options) -> dict[str, Any]:
    """Returns the values that the command line gives; its help shows the defaults of the preset that it names."""
    helps = {"-h", "--help"} & set(arguments)
    others = [word for word in arguments if word not in helps]
    if helps:
        given = _read_flags(others, defaults) if others else {}
        defaults = _with_preset(given.get("preset", Options.preset))
    sections = {"preset": "Run", "sweep": "Sweep", "distributed": "Process"}
    own = flags_of(Options, sections, defaults)
    first = [flag for flag in own if flag.section != "Process"]
    flags = [*first, *flags_of(Config, SECTIONS, defaults.config), *own[len(first) :]]
    described = "\n".join(f"  {name}: {descriptions(presets)[name.upper()]}" for name in PRESETS)
    return read(flags, arguments, PROGRAM, f"{inspect.cleandoc(Options.__doc__ or '')}\n\nPresets:\n{described}")


def _with_preset(preset: str) -> Options:
    check("preset", preset, OPTION_ANNOTATIONS["preset"])
    return Options(preset=preset, config=PRESETS[preset])


def _divide(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the run options, and the fields of the configuration."""
    options = {name: value for name, value in values.items() if name not in ANNOTATIONS}
    return options, {name: value for name, value in values.items() if name in ANNOTATIONS}


def _expand(given: Mapping[str, Any], options: Options) -> tuple[Point, ...]:
    """Returns the points of a sweep, or the one configuration of a run without a sweep."""
    if not options.sweep:
        return options.points
    kept = {name: getattr(options.config, name) for name in {*given, *COMMON} & set(ANNOTATIONS)}

    def make_config(values: dict[str, Any]) -> Config:
        changes = dict(values)
        preset = changes.pop("preset", None)
        base = options.config if preset is None else _with_preset(preset).config.replace(**kept)
        return base.replace(**changes)

    points = make_points(options.sweep, options.samples, options.seed, make_config)
    if len(points) * options.seeds > MAX_AGENTS:
        raise ValueError(
            f"sweep has {len(points):,} points of {options.seeds:,} seeds each, but must have at most "
            f"{MAX_AGENTS:,} agents in all"
        )
    return points


def _resumed(earlier: Options, given: dict[str, Any]) -> Options:
    """Returns the options of an earlier run with those that are given, which may change only some.

    Raises:
        ValueError: names the option that would make it another run.
    """
    options, fields = _divide(given)
    for name, value in given.items():
        before = getattr(earlier.config if name in fields else earlier, name)
        if name not in CHANGEABLE and value != before:
            raise ValueError(
                f"{name} is {value}, but {earlier.resume} was run with {before}: a resumed run keeps everything but "
                f"total_steps"
            )
    config = earlier.config.replace(**fields)
    if config.total_steps < earlier.config.total_steps:
        raise ValueError(
            f"total_steps is {config.total_steps}, but must be at least {earlier.config.total_steps}, the length of "
            f"the run that is resumed"
        )
    points = tuple(Point.from_dict(point.to_dict(earlier.config), config) for point in earlier.points)
    return dataclasses.replace(earlier, **options, config=config, points=points)


def earlier_options(folder: Path) -> Options:
    """Returns the options of an earlier run.

    Raises:
        ValueError: if the folder is not that of a run, or its `config.json` is damaged.
    """
    from ddpg_jax.runs.json_files import look_where_it_was, read_config  # here: `--help` need not wait for NumPy

    if "\0" in str(folder):
        raise ValueError(f"resume is {str(folder)!r}, but must be the folder of a run")
    run = read_config(folder)
    look_where_it_was(folder)
    try:
        config = Config.from_dict(run["config"])
        points = tuple(Point.from_dict(point, config) for point in run.get("points", [])) or (Point((), config),)
        return Options(
            preset=run["preset"],
            seeds=run["num_agents"] // len(points),
            seed=run["seed"],
            out=folder,
            earlier_devices=run["num_devices"],
            group_size=run["group_size"],
            resume=folder,
            config=config,
            points=points,
            **{name: run[name] for name in REMEMBERED if name in run},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read: {error}") from error
