"""The reader of command lines, as every command uses it: one line and status 2 on bad input, help on request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.fields import count


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
    """A shift in m (default: that of the folder)."""
    loud: bool = False
    """Print more."""
    times: tuple[Literal["day", "night"], ...] = ()
    """Times."""
    hidden: int = 0


@dataclass(frozen=True)
class Several:
    """Compares folders."""

    folders: Annotated[tuple[Path, ...], POSITIONAL]
    """The folders."""
    number: int = 3
    """A number."""
    loud: bool = False
    """Print more."""


HERE = Path("here")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("here --number 4 --sizes 8 16", Options(HERE, number=4, sizes=(8, 16))),
        ("--sizes=8x16 --number 4 here", Options(HERE, number=4, sizes=(8, 16))),
        ("here --number 1e0 --sizes 6.4e1", Options(HERE, number=1, sizes=(64,))),
        ("here --shift -1e-3 --color blue --loud", Options(HERE, shift=-1e-3, color="blue", loud=True)),
        ("here --shift None --no-loud --sizes none", Options(HERE)),
        ("here --number 4 --number 5", Options(HERE, number=5)),
        ("here --sizes 8 --loud --sizes=16x32 64", Options(HERE, sizes=(8, 16, 32, 64), loud=True)),
    ],
)
def test_words_become_values_of_their_fields_types(line, expected):
    found = parse(Options, line.split(), "python -m it")
    assert found == expected
    assert [type(value) for value in vars(found).values()] == [type(value) for value in vars(expected).values()]


@pytest.mark.parametrize("line", ["a b c --number 4 --loud", "--number 4 a --loud b c", "a --loud b --number 4 c"])
def test_positional_words_may_stand_on_both_sides_of_options_and_keep_their_order(line):
    assert parse(Several, line.split(), "it") == Several((Path("a"), Path("b"), Path("c")), number=4, loud=True)
    assert parse(Several, ["a", "--", "-b"], "it") == Several((Path("a"), Path("-b")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "folder is not given, but must be"),
        ("here --number 0", "number is 0, but must be a whole number >= 1 (at most 9)"),
        ("here --number three", "number is 'three', but must be a whole number >= 1 (at most 9)"),
        ("--number --loud here", "number is '', but must be a whole number >= 1 (at most 9)"),
        ("here --shift nan", "shift is nan, but must be a finite number"),
        ("here --sizes 8 x", "sizes is [8, '', ''], but must be whole numbers"),
        ("here --color green", "color is 'green', but must be one of red, blue"),
        ("here --times day --times day", "times is ['day', 'day'], but must be some of day, night, each once"),
        ("here --loud=no", "loud is 'no', but must be given as --loud or --no-loud"),
        ("here there", "unexpected argument 'there'"),
        ("here --colour blue", "unknown option --colour; did you mean --color?"),
        ("here --hidden 3", "unknown option --hidden"),
        ("here --lr 3", "unknown option --lr"),  # which has a synonym, but not here
        ("here -x", "unknown option -x"),
    ],
)
def test_mistakes_are_named_in_one_line_with_status_2(line, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, line.split(), "python -m it")
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {message} (see python -m it --help)\n")


def test_help_shows_description_rule_and_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], "python -m it")
    assert stop.value.code == 0
    shown = " ".join(word for word in capsys.readouterr().out.split() if word != "│")
    for text in (
        "Does something with a folder.",
        "--number INT A number. A whole number >= 1 (at most 9). (default: 3)",
        "--sizes INT … Sizes. Whole numbers. (default: none)",
        "--color NAME A colour. One of red, blue. (default: red)",
        "--shift FLOAT A shift in m (default: that of the folder).",
        "--loud, --no-loud Print more. (default: False)",
    ):
        assert text in shown
    assert "hidden" not in shown
