"""`python -m ddpg_jax.run`: trains many agents and leaves a run folder."""

import contextlib
import difflib
import io
import re
import signal
import sys
import time
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_STARTED = time.perf_counter()

if __name__ == "__main__":  # until `main` listens for it, Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro  # noqa: E402  (the clock starts first)

from ddpg_jax.config import Config  # noqa: E402
from ddpg_jax.presets import PRESETS  # noqa: E402
from ddpg_jax.processes.devices import devices_each  # noqa: E402
from ddpg_jax.processes.output import endure  # noqa: E402
from ddpg_jax.processes.signals import Interruption  # noqa: E402
from ddpg_jax.runs.options import Options, Request  # noqa: E402
from ddpg_jax.runs.sweep import COMMON, Point, make_points  # noqa: E402

PROGRAM = "python -m ddpg_jax.run"


IN_ADDITION_TO_RESUME = {
    "resume", "checkpoint", "checkpoint_every", "total_steps", "record_every", "quiet", "verbose", "plan",
    "fail_on_divergence", "log", "devices", "distributed", "coordinator", "num_processes", "process_id",
}  # fmt: skip
"""Flags that may stand beside --resume: the others would make it another run."""

REMEMBERED = ("checkpoint_every", "record_every", "fail_on_divergence", "sweep", "samples", "log")
"""Options beside those of the run itself that a resumed run takes over."""

COUNTS = {
    "seeds": (1, 1_000_000), "seed": (0, 2**31 - 1), "devices": (1, 1024), "group_size": (1, 1_000_000),
    "checkpoint": (1, 2**31 - 1), "record_every": (1, 2**31 - 1), "samples": (1, 1_000_000),
    "num_processes": (1, 100_000), "process_id": (0, 99_999),
}  # fmt: skip
"""The least and the greatest value of the options that are whole numbers."""

CONFIG_TYPES = typing.get_type_hints(Config)
OPTION_TYPES = {name: kind for name, kind in typing.get_type_hints(Options).items() if name != "config"}
LOG_NAMES: tuple[str, ...] = typing.get_args(typing.get_args(OPTION_TYPES["log"])[0])
TYPES: dict[str, Any] = OPTION_TYPES | CONFIG_TYPES


def parse(arguments: list[str]) -> Request:
    """What a command line asks for; on bad input a line on standard error and exit status 2."""
    try:
        folder = _value(arguments, "resume")
        folder = None if folder == "None" else folder  # as for every option that may be left out
        default = _preset_options(_value(arguments, "preset")) if folder is None else _options_of(folder)
        options = _parse_with(default, arguments)
        if _value(arguments, "out") == "":  # which a path would take for the current folder
            raise ValueError("out is '', but must be a folder")
        for name, _ in _flags(arguments) if folder is not None else ():
            if name not in IN_ADDITION_TO_RESUME and _get(options, name) != _get(default, name):
                raise ValueError(
                    f"{name} is {_get(options, name)}, but {folder} was run with {_get(default, name)}: "
                    f"a resumed run keeps everything but total_steps"
                )
        _check(options, default)
        earlier = default.earlier_devices if isinstance(default, Request) else None
        return Request(**vars(options), points=_points(options, default, arguments), earlier_devices=earlier)
    except ValueError as error:
        refuse(str(error))


def _points(options: Options, default: Options, arguments: list[str]) -> tuple[Point, ...]:
    """The configurations to train: those of a sweep, those of an earlier run, or the one that is given."""
    if isinstance(default, Request):
        return tuple(Point.from_dict(point.to_dict(default.config), options.config) for point in default.points)
    if not options.sweep:
        if options.samples is not None:
            raise ValueError(f"samples is {options.samples}, but must not be given without sweep")
        return (Point((), options.config),)
    given = {name for name, _ in _flags(arguments)} & set(CONFIG_TYPES) | set(COMMON)
    kept = {name: getattr(options.config, name) for name in given}

    def make_config(values: dict[str, Any]) -> Config:
        changes = dict(values)
        preset = changes.pop("preset", None)
        base = options.config if preset is None else _preset_options(preset).config.replace(**kept)
        return base.replace(**changes)

    points = make_points(options.sweep, options.samples, options.seed, make_config)
    if len(points) * options.seeds > COUNTS["seeds"][1]:
        raise ValueError(
            f"sweep has {len(points):,} points of {options.seeds:,} seeds each, but must have at most "
            f"{COUNTS['seeds'][1]:,} agents in all"
        )
    return points


def _parse_with(default: Options, arguments: list[str]) -> Options:
    errors = io.StringIO()
    default = Options(**{name: getattr(default, name) for name in (*OPTION_TYPES, "config")})
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(Options, args=arguments, default=default, prog=PROGRAM)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _explain(arguments, default)
        raise ValueError(_first_sentence(errors.getvalue())) from None


def _flags(arguments: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The flags on a command line, as the names of their fields, each with the words behind it."""
    name = ""
    words: list[str] = []
    for word in arguments:
        if word.startswith("-") and word != "--" and isinstance(_number(word), str):
            if name or words:
                yield name, words
            flag, equals, value = word.removeprefix("--").partition("=")
            name, words = flag.replace("-", "_"), [value] if equals else []
            if name.startswith("no_") and TYPES.get(name[3:]) is bool:
                name = name[3:]
        else:
            words.append(word)
    if name or words:
        yield name, words


def _value(arguments: list[str], name: str) -> str | None:
    """The value that the command line gives to a field that decides on the defaults of all others."""
    found = None
    for flag, words in _flags(arguments):
        if flag == name:
            found = words[0] if words else ""
    return found


def _explain(arguments: list[str], default: Options) -> None:
    """Says what is wrong with a command line in terms of fields, values and rules.

    Raises:
        ValueError: with the first mistake that is found.
    """
    for name, words in _flags(arguments):
        if name not in TYPES:
            shown = (
                name.replace("_", "-") if name.startswith("_") else f"--{name.replace('_', '-')}" if name else words[0]
            )
            near = difflib.get_close_matches(name, TYPES, n=1)
            raise ValueError(f"{shown} is no option" + (f": is it --{near[0].replace('_', '-')}?" if near else ""))
        if TYPES[name] is bool:
            if words:
                flag = name.replace("_", "-")
                raise ValueError(
                    f"{name} is {words[0]!r}, but must be given as --{flag} or --no-{flag}, without a value"
                )
            continue
        is_list = "tuple" in str(TYPES[name])
        if name == "sweep" and (len(words) != 1 or "=" not in words[0]):
            raise ValueError(f"sweep is {' '.join(words)!r}, but must be one FIELD=VALUE,VALUE,… without spaces")
        if len(words) > 1 and not is_list:
            raise ValueError(f"{name} is {' '.join(words)!r}, but must be one value")
        numeric = any(kind in str(TYPES[name]) for kind in ("int", "float"))
        values = [_number(word) if numeric else word for word in words]
        value = values if is_list and values != [None] else (values or [""])[0]
        try:
            _check_option(name, value) if name in OPTION_TYPES else default.config.replace(**{name: value})
        except ValueError as error:
            if str(error).startswith(f"{name} is"):  # not a field that the rest of the command line may change
                raise


def _number(word: str) -> Any:
    """The word as a number or None where it is one."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return None if word == "None" else word


def _first_sentence(boxed: str) -> str:
    """What tyro's framed message says first, in one line."""
    lines = [re.sub(r"^[│|]|[│|]$", "", line).strip() for line in boxed.splitlines()]
    text = "\n".join(line for line in lines[1:] if not line.startswith(("╭", "╰")))
    parts = [part for part in re.split(r"^[─-]+$", text, flags=re.MULTILINE) if part.strip()]
    message = " ".join("".join(parts[:1]).split()).replace("Error parsing config: ", "").replace("Error parsing ", "")
    return message or "the command line cannot be read"


def _get(options: Options, name: str) -> object:
    return getattr(options, name, None) if hasattr(options, name) else getattr(options.config, name)


def _preset_options(preset: str | None) -> Options:
    preset = Options.preset if preset is None else preset
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}, but must be one of {', '.join(PRESETS)}")
    return Options(preset=preset, config=PRESETS[preset])


def _options_of(folder: str) -> Request:
    """What an earlier run was asked for."""
    from ddpg_jax.runs.json_files import read_config

    if not folder or "\0" in folder:
        raise ValueError(f"resume is {folder!r}, but must be the folder of a run")
    run = read_config(Path(folder))
    try:
        config = Config.from_dict(run["config"])
        points = tuple(Point.from_dict(point, config) for point in run.get("points", [])) or (Point((), config),)
        remembered = {name: run[name] for name in REMEMBERED if name in run}
        options = Request(
            preset=run["preset"],
            seeds=run["num_agents"] // len(points),
            seed=run["seed"],
            out=Path(folder),
            earlier_devices=run["num_devices"],
            group_size=run["group_size"],
            resume=Path(folder),
            config=config,
            points=points,
            **remembered | {name: tuple(remembered.get(name, ())) for name in ("sweep", "log")},
        )
        _check(options, options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{Path(folder) / 'config.json'} cannot be read: {error}") from error
    return options


def _check(options: Options, default: Options) -> None:
    for name in OPTION_TYPES:
        _check_option(name, getattr(options, name))
    if options.checkpoint is not None and options.resume is None:
        raise ValueError(f"checkpoint is {options.checkpoint}, but can only be given with resume")
    if options.resume is not None and options.config.total_steps < default.config.total_steps:
        raise ValueError(
            f"total_steps is {options.config.total_steps}, but must be at least {default.config.total_steps}, "
            f"the length of the run that is resumed"
        )
    _check_processes(options)


def _check_processes(options: Options) -> None:
    """Refuses what does not tell which processes a run has."""
    for name in ("coordinator", "num_processes", "process_id"):
        if getattr(options, name) is not None and not options.distributed:
            raise ValueError(f"{name} is {getattr(options, name)}, but must not be given without distributed")
    index, size = options.process_id, options.num_processes
    if index is not None and options.coordinator is None:
        raise ValueError(f"process_id is {index}, but must be given with coordinator, which it joins")
    if index is not None and size is not None and index >= size:
        raise ValueError(f"process_id is {index}, but must be less than num_processes, {size}")
    devices_each(options.devices, None, size or 1)


def _check_option(name: str, value: Any) -> None:
    """Refuses what lies outside of the domain of a run option.

    Raises:
        ValueError: names the option, its value and the rule.
    """
    if value is None and type(None) in typing.get_args(OPTION_TYPES[name]):
        return
    if name in COUNTS:
        least, most = COUNTS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{name} is {value!r}, but must be a whole number >= {least} (at most {most})")
    elif name == "checkpoint_every":
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e9:
            raise ValueError(f"{name} is {value!r}, but must be a number of seconds > 0 (at most 1e9)")
    elif name in ("out", "resume"):
        if not str(value) or "\0" in str(value):
            raise ValueError(f"{name} is {str(value)!r}, but must be a folder")
    elif name == "coordinator":
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{name} is {value!r}, but must be HOST:PORT")
    elif name == "sweep":
        if not isinstance(value, tuple | list) or not all(isinstance(sweep, str) for sweep in value):
            raise ValueError(f"{name} is {value!r}, but must be FIELD=VALUE,VALUE,…")
    elif name == "log":
        for log in value if isinstance(value, tuple | list) else (value,):
            if log not in LOG_NAMES:
                raise ValueError(f"log is {log!r}, but must be one of {', '.join(LOG_NAMES)}")
    elif OPTION_TYPES[name] is bool and not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, but must be True or False")


def refuse(reason: str, *, silently: bool = False) -> NoReturn:
    """Ends the command on bad input."""
    if not silently:
        print(f"error: {' '.join(reason.splitlines())} (see {PROGRAM} --help)", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    request = parse(arguments)
    if request.distributed:
        from ddpg_jax.processes import supervisor

        which = {name: getattr(request, name) for name in ("coordinator", "num_processes", "process_id")}
        return supervisor.supervise(arguments, **which)
    return work(request)


def work(request: Request, join: Callable[[], Any] | None = None, advise: Callable[[str], None] | None = None) -> int:
    """Carries out what was asked for, alone or as one of several processes; returns the exit status.

    Args:
        request: what was asked for.
        join: gives the processes of the run (`team.Team`), if it is not this one alone.
        advise: is told how the run can be resumed, once it can be.
    """
    with Interruption() as interruption:
        from ddpg_jax.processes import devices, team  # JAX is imported from here on
        from ddpg_jax.runs import finish, resuming, start

        processes = team.ALONE
        try:
            count = request.num_processes or 1
            devices.prepare(devices.devices_each(request.devices, request.earlier_devices, count))
            processes = processes if join is None else join()
            # A cache on a full or read-only disk, or an entry that a kill has cut short, costs time, no more.
            warnings.filterwarnings("ignore", message="Error .* persistent compilation cache entry")
            session = start.open_session(request, interruption, _STARTED, processes)
        except ValueError as error:
            refuse(str(error), silently=not processes.is_first)
        except team.LostProcessError:
            return team.LOST
        if session is None:
            return 0
        if advise is not None:
            advise(resuming.how_to_resume(request, session.folder))
        return finish.run(session)


if __name__ == "__main__":
    endure()
    sys.exit(main())
