"""What a process of a run is given by the one that starts it."""

import dataclasses
import json
from dataclasses import dataclass


def is_local(coordinator: str | None) -> bool:
    """Returns whether the first process of a run, given as HOST:PORT, is on this machine by its address."""
    return (coordinator or "").rpartition(":")[0] in ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Assignment:
    """Which process of a run it is, and what it may use of its machine."""

    coordinator: str | None = None
    """HOST:PORT of the first process; None: JAX detects the cluster, like the next two."""
    num_processes: int | None = None
    """The number of processes in all."""
    process_id: int | None = None
    """The number of this process, from 0."""
    device: int | None = None
    """The accelerator that it uses; None: those that JAX gives it."""
    cores: tuple[int, ...] = ()
    """The cores that it uses; none: all."""
    advice: int = -1
    """The descriptor to which it writes how the run can be resumed."""

    def to_json(self) -> str:
        """Returns the assignment as a word of a command line."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Assignment":
        """Returns the assignment that `to_json` described."""
        values = json.loads(text)
        return Assignment(**values | {"cores": tuple(values["cores"])})
