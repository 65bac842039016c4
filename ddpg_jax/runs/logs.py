"""Evaluations as they are made, for TensorBoard and for Weights & Biases: optional extras, off by default."""

import netrc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from ddpg_jax.results.history import Metrics
from ddpg_jax.results.statistics import iqm

Log: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""Writes values with their names, at a number of environment steps."""


def evaluation_values(agents: np.ndarray, metrics: Metrics) -> dict[str, float]:
    """Returns an evaluation as named values: the metrics of each agent, and statistics over all agents.

    The names are "metric/agent-000003", and "metric/iqm", "metric/median" and "metric/worst" over all agents that train
    together. Values that are NaN (no episode has ended, the agent has diverged) are left out.

    Args:
        agents: [N] the agents' numbers.
        metrics: columns [N].
    """
    values = {}
    for metric, column in metrics._asdict().items():
        finite = np.isfinite(column)
        for agent, value in zip(agents[finite], column[finite], strict=True):
            values[f"{metric}/agent-{agent:06d}"] = float(value)
        if finite.any():
            values[f"{metric}/iqm"] = float(iqm(column[finite]))
            values[f"{metric}/median"] = float(np.median(column[finite]))
            values[f"{metric}/worst"] = float(np.min(column[finite]))
    return values


@contextmanager
def _tensorboard(folder: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Writes event files for `tensorboard --logdir`, a scalar per value.

    A resumed run repeats the evaluations behind its checkpoint. Those that the files have are not written again.
    """
    from tensorboardX import SummaryWriter

    events = folder / "tensorboard"
    files = sorted(events.iterdir()) if events.is_dir() else []
    written = {scalar for path in files for scalar in logged_scalars(path)}
    with SummaryWriter(str(events), flush_secs=10, filename_suffix=f".{len(files)}") as writer:
        writer.add_text("settings", "\n".join(f"- {name}: {value}" for name, value in settings.items()))

        def write(env_steps: int, values: Mapping[str, float]) -> None:
            repeated = any((name, env_steps) in written for name in values if "/agent-" in name)
            for name, value in values.items():
                if not (repeated and (name, env_steps) in written):  # agents trained later have statistics of their own
                    writer.add_scalar(name, value, env_steps)

        yield write


def logged_scalars(path: Path) -> dict[tuple[str, int], float]:
    """Returns the scalars in an event file by their names and environment steps; a record that a kill cut ends it.

    A record is its length (8 bytes), a checksum (4), the event, and a checksum (4) (TensorFlow's TFRecord format).
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    data, at = path.read_bytes(), 0
    found: dict[tuple[str, int], float] = {}
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 8], "little")
        if end + 4 > len(data):
            break
        try:
            event = Event.FromString(data[at + 12 : end])
        except DecodeError:
            break
        values = (value for value in event.summary.value if value.HasField("simple_value"))
        found |= {(value.tag, event.step): value.simple_value for value in values}
        at = end + 4
    return found


@contextmanager
def _weights_and_biases(folder: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Writes to a run of Weights & Biases, configured by its own variables (WANDB_MODE=offline, WANDB_PROJECT, …).

    A resumed run continues its run there; evaluations behind its checkpoint appear twice, with the same values.
    """
    import wandb

    project, known = os.environ.get("WANDB_PROJECT", "ddpg_jax"), folder / "wandb/run-id"
    earlier = known.read_text().strip() if known.is_file() else None
    run = wandb.init(
        project=project, name=folder.name, dir=folder, config=dict(settings), id=earlier,
        resume="allow" if earlier else None, settings=wandb.Settings(console="off", silent=True),
    )  # fmt: skip
    known.parent.mkdir(exist_ok=True)
    known.write_text(str(run.id))
    run.define_metric("env_steps")
    run.define_metric("*", step_metric="env_steps")  # waves of agents begin at step 0 again
    try:
        yield lambda env_steps, values: run.log({"env_steps": env_steps, **values})
    finally:
        run.finish()


class Destination(NamedTuple):
    """A program that evaluations can be logged to."""

    package: str
    """The package that it needs."""
    open: Callable[[Path, Mapping[str, Any]], AbstractContextManager[Log]]
    """Opens a log for a run's folder and settings, and closes it at the end of the `with` statement."""


LOGS = {"tensorboard": Destination("tensorboardX", _tensorboard), "wandb": Destination("wandb", _weights_and_biases)}
"""The destinations by their names in the option `log`."""


def require(names: Sequence[str]) -> None:
    """Checks that the packages of logs are installed, and that Weights & Biases has a key if it needs one.

    Raises:
        ValueError: if not; the message says what to do.
    """
    from importlib.util import find_spec

    for name in names:
        package = LOGS[name].package
        if find_spec(package) is None:
            raise ValueError(f"log is {name}, but {package} is not installed: pip install 'ddpg_jax[{name}]'")
    if "wandb" in names and not _wandb_can_start():
        raise ValueError(
            "log is wandb, but must have a key: set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline"
        )


def _wandb_can_start() -> bool:
    """Returns whether Weights & Biases needs no key, has one, or can ask for one in this terminal."""
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared") or os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError, RuntimeError):
        hosts = {}
    server = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    return server in hosts or (sys.stdin is not None and sys.stdin.isatty())
