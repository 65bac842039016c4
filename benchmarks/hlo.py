"""Reads the text of compiled programs (XLA's HLO): what their loops launch, and what they copy."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}
"""Operations that launch nothing."""

IN_PLACE = {"parameter", "get-tuple-element", "bitcast", "dynamic-update-slice", "tuple", "while", "call", "copy-done"}
"""Operations that make no new array of the size of their operand."""

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?%?([\w.\-]+)")


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    shape: str
    opcode: str
    line: str


class Loop(NamedTuple):
    """A loop, and what each round of it launches."""

    launches: Counter[str]
    """Operations by kind; those of loops within it count once."""
    known_trip_count: bool


def computations(text: str) -> dict[str, list[Instruction]]:
    """Returns the computations of a module by their names; the first function to run is `ENTRY`."""
    parts: dict[str, list[Instruction]] = {}
    name = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            name = "ENTRY" if head[1] else head[2]
            parts[name] = []
        elif name and (found := _INSTRUCTION.match(line)):
            parts[name].append(Instruction(found[1], found[2], found[3], line))
    return parts


def replay_copies(text: str, capacity: int, *, in_loops: bool) -> list[str]:
    """Returns the instructions that make an array with an axis of `capacity` rows; a write in place makes none.

    A write in place is a dynamic-update-slice, alone or at the root of a fusion without another array of this size.

    Args:
        text: of a compiled program.
        capacity: a number that is no other array's size.
        in_loops: look only at what a loop does in each round; False: look at the whole program.
    """
    parts, bodies = computations(text), re.findall(r"body=%?([\w.\-]+)", text)
    if in_loops and not bodies:
        raise ValueError("the program has no loop")

    def copies(each: Instruction) -> bool:
        large = re.search(rf"\b{capacity}\b", each.shape) is not None
        return large and each.opcode not in IN_PLACE and not _writes(each, parts)

    run = _run_by(parts, bodies if in_loops else ["ENTRY"], enter=lambda each: not copies(each))
    return [each.line.strip() for each in run if copies(each)]


def learning_loop(text: str) -> Loop:
    """Returns the loop that launches most apart from loops within it: a round of it is a step that learns."""
    parts = computations(text)
    lines = {found[1]: line for line in text.splitlines() if (found := re.search(r"body=%?([\w.\-]+)", line))}

    def launches(body: str, enter: Callable[[Instruction], bool]) -> Counter[str]:
        return Counter(each.opcode for each in _run_by(parts, [body], enter=enter) if each.opcode not in FREE)

    body = max(lines, key=lambda name: launches(name, lambda each: _calls(each) and each.opcode != "while").total())
    return Loop(launches(body, _calls), "known_trip_count" in lines[body])


def _run_by(
    parts: dict[str, list[Instruction]], names: list[str], *, enter: Callable[[Instruction], bool]
) -> Iterator[Instruction]:
    """Yields the instructions of computations, and of all that those call for which `enter` is true."""
    reached = list(names)
    for name in reached:  # grows during the loop
        for each in parts[name]:
            yield each
            if enter(each):
                reached.extend(other for other in _CALLED.findall(each.line) if other not in reached)


def _calls(each: Instruction) -> bool:
    """Returns whether an instruction runs other computations; a fusion is one operation."""
    return each.opcode in ("while", "call", "conditional")


def _writes(fusion: Instruction, parts: dict[str, list[Instruction]]) -> bool:
    """Returns whether a fusion only writes rows into an array in place."""
    if fusion.opcode != "fusion":
        return False
    (inside,) = re.findall(r"calls=%?([\w.\-]+)", fusion.line)
    (root,) = [each for each in parts[inside] if each.line.lstrip().startswith("ROOT")]
    return root.opcode == "dynamic-update-slice"
