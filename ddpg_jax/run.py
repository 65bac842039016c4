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
    plan: bool = False
    """Print the memory, waves and time that the run would take, and exit."""
    quiet: bool = False
    """Print nothing but errors."""
    verbose: bool = False
    """Print a line for every training episode."""
    config: tyro.conf.OmitArgPrefixes[Config] = PRESETS["pendulum"]


def parse(arguments: list[str]) -> Options:
    """The options that a command line gives; on bad input a line on standard error and exit status 2."""
    preset = _preset(arguments)
    default = Options(preset=preset, config=PRESETS[preset])
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = tyro.cli(Options, args=arguments, default=default, prog=PROGRAM)
        _check(options)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _refuse(_one_line(errors.getvalue()))
    except ValueError as error:
        _refuse(str(error))
    return options


def _preset(arguments: list[str]) -> str:
    """The preset that the command line names, whose values are the defaults of all other flags."""
    preset = Options.preset
    for word, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--preset":
            preset = value
        elif word.startswith("--preset="):
            preset = word.partition("=")[2]
    if preset not in PRESETS:
        _refuse(f"preset is {preset!r}, but must be one of {', '.join(PRESETS)}")
    return preset


def _check(options: Options) -> None:
    for name, least in (("seeds", 1), ("seed", 0), ("devices", 1), ("group_size", 1)):
        value = getattr(options, name)
        if value is not None and not least <= value < 2**31:
            raise ValueError(f"{name} is {value}, but must be a whole number >= {least} (at most 2147483647)")


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


def _refuse(reason: str) -> NoReturn:
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
        _refuse(str(error))


if __name__ == "__main__":
    sys.exit(main())
