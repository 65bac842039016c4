"""Command lines: a command is a dataclass of options, which tyro reads and describes, and which checks itself.

The strings below the fields are the help. Words that are not of a field's type reach the dataclass as they are, so that
a command line is refused with the same message as a call from Python.
"""

import dataclasses
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from types import ModuleType
from typing import Annotated, Any, NamedTuple, NoReturn, NotRequired, Required, TypedDict, TypeVar, get_args

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from ddpg_jax.fields import Kind, annotations, check_fields, descriptions, format_value, from_text, kind_of

T = TypeVar("T")

POSITIONAL = tyro.conf.Positional
"""Marks a field that is given without its name."""

SYNONYMS = {
    "--actor-lr or --critic-lr": "lr learning_rate",
    "--total-steps": "total_timesteps num_steps num_timesteps timesteps",
    "--env-id": "env task env_name",
    "--seeds": "num_agents n_agents n_seeds num_seeds",
    "--replay-capacity": "buffer_size replay_size memory_size",
    "--gamma": "discount discount_factor",
    "--hidden-sizes": "hidden_dim hidden_size layers",
    "--eval-every": "eval_freq eval_interval",
    "--out": "output output_dir save_dir logdir",
    "--log wandb": "wandb",
    "--log tensorboard": "tensorboard",
    "JAX_PLATFORMS=cpu or cuda, or --devices for their number": "gpu device cuda cpu",
}
"""The names by which other programs call what is meant."""

METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", range: "N|A:B"}


class Flag(NamedTuple):
    """A field as the command line shows it."""

    name: str
    annotation: Any
    description: str
    default: Any
    section: str

    @property
    def kind(self) -> Kind:
        """The annotation taken apart."""
        return kind_of(self.annotation)

    @property
    def is_positional(self) -> bool:
        """Whether the value is given without the field's name."""
        return POSITIONAL in get_args(self.annotation)


def flags_of(cls: type, sections: Mapping[str, str] | None = None, default: Any = None) -> list[Flag]:
    """Returns the flags of a dataclass: its fields that have a description.

    `sections` names sections of the help by their first fields; `default` is an instance with the defaults to show.
    """
    found, section, texts = [], "options", descriptions(cls)
    for field in dataclasses.fields(cls):
        section = (sections or {}).get(field.name, section)
        if field.name in texts:
            value = field.default if default is None else getattr(default, field.name)
            found.append(Flag(field.name, annotations(cls)[field.name], texts[field.name], value, section))
    return found


def read(flags: Sequence[Flag], arguments: Sequence[str], program: str, description: str) -> dict[str, Any]:
    """Returns the values that a command line gives, unchecked; after `--help` the process ends with status 0.

    A ValueError names an option that is unknown.
    """
    sections: dict[str, dict[str, Any]] = {}
    for flag in flags:
        sections.setdefault(flag.section, {})[flag.name] = _for_tyro(flag)
    typed_dict: Any = TypedDict  # whose fields are known only here
    boxes = {name: Annotated[typed_dict(name, hints), tyro.conf.OmitArgPrefixes] for name, hints in sections.items()}
    single = [*boxes] == ["options"]  # whose flags stand beside --help, in the box that has no name
    command: Any = boxes["options"] if single else typed_dict("CommandLine", boxes)
    found, rest = tyro.cli(command, args=[*_with_values(arguments, flags)], prog=program, description=description,
                           return_unknown_args=True,  # the search for comments in all sources would take long
                           config=(tyro.conf.HelptextFromCommentsOff,))  # fmt: skip
    given = found if single else dict(chain(*(box.items() for box in found.values())))
    for flag in flags:
        if flag.is_positional and flag.kind.is_tuple and not any(word.startswith("-") for word in rest):
            words = [*given.get(flag.name, ()), *rest]  # which may stand on both sides of an option
            given[flag.name], rest = [words] if words else [], []
    if rest:
        raise ValueError(_refusal_of(rest[0], [flag.name for flag in flags]))
    values = {}
    for flag in flags:
        if (words := given.get(flag.name, [])) != []:
            several = [*chain(*words)] if flag.kind.is_tuple else words
            values[flag.name] = words if flag.kind.type is bool else from_text(several, flag.annotation)
    return values


def to_words(values: Mapping[str, Any]) -> list[str]:
    """Returns the words from which `read` reads these values."""
    words = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{option}")
        else:
            several = isinstance(value, tuple) and value and not isinstance(value[0], int)
            words += [f"--{option}={format_value(item)}" for item in (value if several else [value])]
    return words


def _for_tyro(flag: Flag) -> Any:
    """Returns the type with which tyro reads and describes a flag: of several words, a list with those of each time."""
    kind, rule = flag.kind, flag.kind.rule.text
    hint = "(required)" if flag.default is dataclasses.MISSING else f"(default: {format_value(flag.default)})"
    if flag.is_positional or (flag.default is None and "(default: " in flag.description):
        hint = ""
    shown = f" {rule[0].upper()}{rule[1:]}." if kind.type in (int, float) or kind.choices else ""
    text = tyro.conf.arg(help=flag.description + shown, help_behavior_hint=hint)
    if kind.type is bool:
        return NotRequired[Annotated[bool, text]]
    words: Any = PrimitiveConstructorSpec(
        nargs="*" if kind.is_tuple else 1,
        metavar=METAVARS.get(kind.type, "NAME" if kind.choices else "PATH") + " …" * kind.is_tuple,
        instance_from_str=list,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [format_value(value)],
    )
    if kind.is_tuple and not flag.is_positional:
        return Required[Annotated[list[Annotated[Any, words]], text, tyro.conf.UseAppendAction]]
    return NotRequired[Annotated[(Any, words, text, *([POSITIONAL] if flag.is_positional else []))]]


def _with_values(arguments: Sequence[str], flags: Sequence[Flag]) -> Iterator[str]:
    """Yields the words, with `--seeds=` for `--seeds` where no value follows, which the field's own check refuses."""
    switches = {flag.name for flag in flags if flag.kind.type is bool}
    scalars = {flag.name for flag in flags if not flag.kind.is_tuple} - switches
    for word, after in zip_longest(arguments, arguments[1:], fillvalue="--"):
        option, equals, value = word.partition("=")
        name = option[2:].replace("-", "_") if option.startswith("--") else ""
        if equals and name in switches:
            raise ValueError(f"{name} is {value!r}, but must be given as {option} or --no-{option[2:]}")
        yield f"{word}=" if not equals and name in scalars and re.match(r"--|-[^\W\d_]", after) else word


def _refusal_of(word: str, names: Sequence[str]) -> str:
    """Returns why a word is refused that belongs to no option, and which option may be meant."""
    if not word.startswith("-"):
        return f"unexpected argument {word!r}"
    option = word.partition("=")[0]
    name = option.lstrip("-").replace("-", "_")
    meant = [text for text, others in SYNONYMS.items() if name in others.split()
             and {flag.replace("-", "_") for flag in re.findall(r"--([\w-]+)", text)} <= {*names}]  # fmt: skip
    meant = meant or [f"--{near}".replace("_", "-") for near in difflib.get_close_matches(name, names, n=1)]
    return f"unknown option {option}" + "".join(f"; did you mean {each}?" for each in meant)


def parse(options: type[T], arguments: Sequence[str] | None, program: str) -> T:
    """Returns the options that a command line gives, checked, as the dataclass whose fields they are.

    If they are refused, the process ends with a line on standard error and status 2; after `--help` with status 0.
    """
    try:
        flags = flags_of(options)
        words = sys.argv[1:] if arguments is None else arguments
        values = read(flags, words, program, inspect.cleandoc(options.__doc__ or ""))
        for flag in flags:
            if flag.default is dataclasses.MISSING and flag.name not in values:
                raise ValueError(f"{flag.name} is not given, but must be")
        found = options(**values)
        check_fields(found)
    except ValueError as error:
        refuse(str(error), program)
    return found


def keep_callable(module: str, home: str) -> None:
    """Keeps `ddpg_jax.NAME(...)` the function of the module `home` when a command's module of that name is imported."""

    class Callable(ModuleType):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(home), module.rpartition(".")[2])(*arguments, **options)

    sys.modules[module].__class__ = Callable


def refuse(reason: str, program: str) -> NoReturn:
    """Ends a command with a line on standard error and status 2."""
    print(f"error: {' '.join(reason.splitlines())} (see {program} --help)", file=sys.stderr)
    raise SystemExit(2)
