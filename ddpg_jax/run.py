"""`python -m ddpg_jax.run`: trains many agents and leaves a run folder."""

import contextlib
import io
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_STARTED = time.perf_counter()

import tyro  # noqa: E402  (the clock starts first)

from ddpg_jax.config import Config  # noqa: E402
from ddpg_jax.presets import PRESETS  # noqa: E402

PROGRAM = "python -m ddpg_jax.run"


@dataclass(frozen=True)
class Options:
    """Trains independent DDPG agents in one compiled program, and leaves a run folder with curves, tables and policies.

    The defaults shown are those of the preset: `--preset keras --help` shows the tutorial's.
    """

    preset: str = "pendulum"
    """Named configuration to start from: pendulum, keras, gist, gist_corrected or paper."""
    seeds: int = 32
    """Number of agents; >= 1. Agent i's key is the root key with i folded in."""
    seed: int = 0
    """Root seed; >= 0."""
    out: Path | None = None
    """The run folder itself, new or empty; None: runs/<time>-<preset>-<environment>."""
    devices: int | None = None
    """Devices to spread the agents over; >= 1. None: every usable core, or every accelerator."""
    group_size: int | None = None
    """Agents that advance together on a device; >= 1. None: chosen for the networks and the device."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints; > 0. They are rarer where they would cost more than 5% of the run."""
    resume: Path | None = None
    """Run folder to continue, with its own configuration; only --total-steps may then be given, to extend it."""
    checkpoint: int | None = None
    """Number of the checkpoint to resume from; None: the newest."""
    record_every: int | None = None
    """Record every so many training episodes of each agent in rollouts/; >= 1. None: record none."""
    fail_on_divergence: bool = False
    """End with status 1 if any agent's numbers are no longer finite, instead of only if all are."""
    plan: bool = False
    """Print the memory, waves and time that the run would take, and exit."""
    quiet: bool = False
    """Print nothing but errors."""
    verbose: bool = False
    """Print a line for every training episode."""
    config: tyro.conf.OmitArgPrefixes[Config] = PRESETS["pendulum"]


IN_ADDITION_TO_RESUME = {
    "resume", "checkpoint", "checkpoint_every", "total_steps", "record_every", "quiet", "verbose", "plan",
    "fail_on_divergence",
}  # fmt: skip
"""Flags that may stand beside --resume: the others would make it another run."""


def parse(arguments: list[str]) -> Options:
    """The options that a command line gives; on bad input a line on standard error and exit status 2."""
    try:
        folder = _value(arguments, "--resume")
        default = _options_of(Path(folder)) if folder else _preset_options(_value(arguments, "--preset"))
        options = _parse_with(default, arguments)
        for name in _given(arguments) if folder else ():
            if name not in IN_ADDITION_TO_RESUME and _get(options, name) != _get(default, name):
                raise ValueError(
                    f"{name} is {_get(options, name)}, but {folder} was run with {_get(default, name)}: "
                    f"a resumed run keeps everything but total_steps"
                )
        _check(options, default)
    except ValueError as error:
        refuse(str(error))
    return options


def _parse_with(default: Options, arguments: list[str]) -> Options:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(Options, args=arguments, default=default, prog=PROGRAM)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(errors.getvalue())) from None


def _value(arguments: list[str], flag: str) -> str | None:
    """The value that the command line gives to a flag, which decides on the defaults of all others."""
    found = None
    for word, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == flag:
            found = value
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def _given(arguments: list[str]) -> list[str]:
    """The names of the fields whose flags stand on the command line."""
    words = [word[2:].partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")]
    return [word.removeprefix("no_") for word in words]


def _get(options: Options, name: str) -> object:
    return getattr(options, name, None) if hasattr(options, name) else getattr(options.config, name)


def _preset_options(preset: str | None) -> Options:
    preset = Options.preset if preset is None else preset
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}, but must be one of {', '.join(PRESETS)}")
    return Options(preset=preset, config=PRESETS[preset])


def _options_of(folder: Path) -> Options:
    """The options of an earlier run."""
    from ddpg_jax.run_folder import read_config

    run = read_config(folder)
    return Options(
        preset=run["preset"],
        seeds=run["num_agents"],
        seed=run["seed"],
        out=folder,
        devices=run["num_devices"],
        group_size=run["group_size"],
        resume=folder,
        config=Config.from_dict(run["config"]),
    )


def _check(options: Options, default: Options) -> None:
    for name in ("seeds", "seed", "devices", "group_size", "checkpoint", "record_every"):
        value, least = getattr(options, name), 0 if name == "seed" else 1
        if value is not None and not least <= value < 2**31:
            raise ValueError(f"{name} is {value}, but must be a whole number >= {least} (at most 2147483647)")
    if not 0 < options.checkpoint_every <= 1e9:
        raise ValueError(f"checkpoint_every is {options.checkpoint_every}, but must be a number of seconds > 0")
    if options.checkpoint is not None and options.resume is None:
        raise ValueError(f"checkpoint is {options.checkpoint}, but can only be given with resume")
    if options.resume is not None and options.config.total_steps < default.config.total_steps:
        raise ValueError(
            f"total_steps is {options.config.total_steps}, but must be at least {default.config.total_steps}, "
            f"the length of the run that is resumed"
        )


def _one_line(boxed: str) -> str:
    """The sense of tyro's framed message in one line: what is wrong, and the help of the flag that it is wrong in."""
    lines = [re.sub(r"^[│|]|[│|]$", "", line).strip() for line in boxed.splitlines()]
    text = "\n".join(line for line in lines if line and not line.startswith(("╭", "╰")))
    what, *more = re.split(r"^─+$", text, flags=re.MULTILINE)
    message = " ".join(what.split()).replace("Error parsing config: ", "").replace("Error parsing ", "")
    for paragraph in more:
        title, _, rest = paragraph.strip().partition("\n")
        if title.startswith("Argument helptext"):
            rest = re.sub(r"\(default:.*", "", " ".join(rest.partition("\n")[2].split())).strip()
            return f"{message} [{rest}]"
    return message or "the command line cannot be read"


def refuse(reason: str) -> NoReturn:
    """Ends the command on bad input."""
    print(f"error: {reason} (see {PROGRAM} --help)", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    from ddpg_jax import devices, launch  # JAX is imported from here on

    devices.prepare(options.devices)
    try:
        return launch.launch(options, started=_STARTED)
    except ValueError as error:
        refuse(str(error))


if __name__ == "__main__":
    sys.exit(main())
