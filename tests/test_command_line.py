"""The reader of command lines, as every command uses it: one line and status 2 on bad input, help on request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ddpg_jax.command_line import POSITIONAL, REPEATED, parse
from ddpg_jax.domains import count


@dataclass(frozen=True)
class Options:
    """Does something with a folder."""

    folder: Annotated[Path, POSITIONAL]
    """The folder."""
    number: Annotated[int, count(1, 9)] = 3
    """A number."""
    sizes: tuple[int, ...] = ()
    """Sizes."""
    color: Literal["red", "blue"] = "red"
    """A colour."""
    shift: float | None = None
    """A shift, in m."""
    loud: bool = False
    """Print more."""
    times: Annotated[tuple[str, ...], REPEATED] = ()
    """Times."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("here", Options(Path("here"))),
        ("here --number 4 --sizes 8 16", Options(Path("here"), number=4, sizes=(8, 16))),
        ("--sizes=8x16 --number 4 here", Options(Path("here"), number=4, sizes=(8, 16))),
        ("--loud here", Options(Path("here"), loud=True)),
        ("here --shift -1e-3 --color blue --loud", Options(Path("here"), shift=-1e-3, color="blue", loud=True)),
        ("here --shift None --no-loud --sizes none", Options(Path("here"))),
        ("here --times 1 --times 2", Options(Path("here"), times=("1", "2"))),
        ("here --number 4 --number 5", Options(Path("here"), number=5)),
    ],
)
def test_values_have_the_types_of_their_fields(line, expected):
    assert parse(Options, line.split(), "python -m it") == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "folder is not given, but must be"),
        ("here --number 0", "number is 0, but must be a whole number >= 1 (at most 9)"),
        ("here --number", "number is '', but must be a whole number >= 1 (at most 9)"),
        ("here --shift nan", "shift is nan, but must be a finite number"),
        ("here --sizes 8 x", "sizes is [8, '', ''], but must be whole numbers"),
        ("here --color green", "color is 'green', but must be one of red, blue"),
        ("here --colour blue", "unknown option --colour; did you mean --color?"),
        ("here --times 1 2", "times is '1 2', but must be one word without spaces"),
    ],
)
def test_mistakes_are_told_in_one_line_with_status_2(line, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, line.split(), "python -m it")
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message} (see python -m it --help)\n"


def test_help_shows_description_rule_and_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], "python -m it")
    assert stop.value.code == 0
    shown = " ".join(word for word in capsys.readouterr().out.split() if word != "│")
    assert "Does something with a folder." in shown
    assert "A number. A whole number >= 1 (at most 9). (default: 3)" in shown
    assert "A colour. One of red, blue. (default: red)" in shown
