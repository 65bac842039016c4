"""Command lines: tyro takes the words apart and prints the help; the fields' domains say what the words mean."""

import dataclasses
import difflib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn, NotRequired, Required, TypedDict, TypeVar

import tyro

from ddpg_jax.domains import Kind, annotations, descriptions, from_words, kind_of, rule_of
from ddpg_jax.values import shown

T = TypeVar("T")

POSITIONAL = tyro.conf.Positional
"""Marks a field that is given without its name."""

REPEATED = tyro.conf.UseAppendAction
"""Marks a field that may be given several times, with one value each."""


class Alias(NamedTuple):
    """Marks a field that has a second flag."""

    flag: str


class Flag(NamedTuple):
    """A field as the command line shows it."""

    name: str
    annotation: Any
    description: str
    default: Any
    section: str


def flags_of(cls: type, sections: Mapping[str, str] | None = None, default: Any = None) -> list[Flag]:
    """Returns the flags of a dataclass.

    Args:
        cls: the dataclass; fields whose names begin with an underscore, and undescribed ones, are not shown.
        sections: names of sections of the help by their first fields.
        default: an instance whose values are shown as defaults.
    """
    found, section = [], "options"
    for field in dataclasses.fields(cls):
        section = (sections or {}).get(field.name, section)
        if field.name in descriptions(cls):
            value = field.default if default is None else getattr(default, field.name)
            hint = annotations(cls)[field.name]
            found.append(Flag(field.name, hint, descriptions(cls)[field.name], value, section))
    return found


def read(flags: Sequence[Flag], arguments: Sequence[str], program: str, description: str) -> dict[str, Any]:
    """Returns the values of the flags that a command line gives; after `--help` the process ends with status 0.

    Raises:
        ValueError: names the option, its value and the rule.
    """
    sections: dict[str, dict[str, Any]] = {}
    for flag in flags:
        sections.setdefault(flag.section, {})[flag.name] = _for_tyro(flag)
    boxes = {name: _section(name, fields) for name, fields in sections.items()}
    single = [*boxes] == ["options"]  # whose flags stand beside --help, in the box that has no name
    command_line = boxes["options"] if single else _typed_dict("CommandLine", boxes)
    no_comments = (tyro.conf.HelptextFromCommentsOff,)  # which saves the search for them in all sources
    given, unknown = tyro.cli(
        command_line,
        args=list(arguments),
        prog=program,
        description=description,
        return_unknown_args=True,
        config=no_comments,
    )
    if unknown:
        raise ValueError(_unknown(unknown[0], [flag.name for flag in flags]))
    words = given if single else {name: value for box in given.values() for name, value in box.items()}
    for flag in flags:
        if _is(POSITIONAL, flag):
            _move_to(flag, words, flags)
    return {
        flag.name: _value(flag, words[flag.name])
        for flag in flags
        if flag.name in words and not (_is(REPEATED, flag) and words[flag.name] == ())
    }


def _move_to(positional: Flag, words: dict[str, Any], flags: Sequence[Flag]) -> None:
    """Gives the words behind the one value of another flag to the field that has no name: `--start 3 FOLDER`."""
    for flag in flags:
        given = words.get(flag.name)
        if isinstance(given, tuple) and len(given) > 1 and not kind_of(flag.annotation).is_tuple:
            words[flag.name] = given[:1]
            words[positional.name] = (*words.get(positional.name, ()), *given[1:])


def _section(name: str, fields: dict[str, Any]) -> Any:
    """Returns the type of a section of the help. Flags that are not given are absent, repeatable ones are empty."""
    hints = {
        field: Required[hint] if REPEATED in hint.__metadata__ else NotRequired[hint] for field, hint in fields.items()
    }
    return Annotated[_typed_dict(name, hints), tyro.conf.OmitArgPrefixes]


_typed_dict: Any = TypedDict  # whose fields are known only here


def _for_tyro(flag: Flag) -> Any:
    """Returns the type that makes tyro read a flag's words as they are, and describe it."""
    kind, extras = kind_of(flag.annotation), getattr(flag.annotation, "__metadata__", ())
    markers = [extra for extra in extras if extra in (POSITIONAL, REPEATED)]
    hint = "(repeatable)" if REPEATED in markers else "" if POSITIONAL in markers else f"(default: {_default(flag)})"
    text = " ".join(filter(None, [flag.description, _capitalised(rule_of(flag.annotation))]))
    if kind.type is bool:
        return Annotated[bool, tyro.conf.arg(help=text, help_behavior_hint=hint)]
    words: Any = tuple[tuple[str, ...], ...] if REPEATED in markers else tuple[str, ...]
    aliases = [extra.flag for extra in extras if isinstance(extra, Alias)]
    described: Any = Annotated[
        words, tyro.conf.arg(metavar=_metavar(kind), help=text, help_behavior_hint=hint, aliases=aliases)
    ]
    for marker in markers:
        described = Annotated[described, marker]
    return described


def _capitalised(rule: str) -> str:
    return f"{rule[0].upper()}{rule[1:]}." if rule else ""


def _default(flag: Flag) -> str:
    return shown(flag.default) if flag.default != () else "none"


def _metavar(kind: Kind) -> str:
    names = {int: "INT", float: "FLOAT", str: "TEXT"}
    return f"{names.get(kind.type, 'NAME' if kind.choices else 'PATH')}{' …' if kind.is_tuple else ''}"


def _value(flag: Flag, words: Any) -> Any:
    if isinstance(words, bool):
        return words
    if _is(REPEATED, flag):
        for each in words:
            if len(each) != 1:
                raise ValueError(f"{flag.name} is {' '.join(each)!r}, but must be one word without spaces")
        words = [each[0] for each in words]
    return from_words(flag.name, words, flag.annotation)


def _is(marker: Any, flag: Flag) -> bool:
    return marker in getattr(flag.annotation, "__metadata__", ())


def _unknown(word: str, names: Sequence[str]) -> str:
    if not word.startswith("-"):
        return f"unexpected word {word!r}: it belongs to no option"
    name = word.split("=")[0].lstrip("-").replace("-", "_")
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean --{near[0].replace('_', '-')}?" if near else ""
    return f"unknown option {word.split('=')[0]}{hint}"


def parse(options: type[T], arguments: Sequence[str] | None, program: str) -> T:
    """Returns the options that a command line gives, as the dataclass whose fields they are.

    Raises:
        SystemExit: with status 2 and one line on standard error where they cannot be read, with 0 after `--help`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        flags = flags_of(options)
        values = read(flags, arguments, program, inspect.cleandoc(options.__doc__ or ""))
        for flag in flags:
            if flag.default is dataclasses.MISSING and flag.name not in values:
                raise ValueError(f"{flag.name} is not given, but must be")
        return options(**values)
    except ValueError as error:
        refuse(str(error), program)


def refuse(reason: str, program: str) -> NoReturn:
    """Ends a command with a line on standard error and status 2."""
    print(f"error: {' '.join(reason.splitlines())} (see {program} --help)", file=sys.stderr)
    raise SystemExit(2)
