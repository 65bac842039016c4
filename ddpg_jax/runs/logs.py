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
    """Writes event files for `tensorboard --logdir`, a scalar per value."""
    from tensorboardX import SummaryWriter

    events = folder / "tensorboard"
    number = len(list(events.iterdir())) if events.is_dir() else 0  # a resumed run writes another file
    with SummaryWriter(str(events), flush_secs=10, filename_suffix=f".{number}") as writer:
        writer.add_text("settings", "\n".join(f"- {name}: {value}" for name, value in settings.items()))

        def write(env_steps: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, env_steps)

        yield write


@contextmanager
def _weights_and_biases(folder: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Writes to a run of Weights & Biases, configured by its own variables (WANDB_MODE=offline, WANDB_PROJECT, …)."""
    import wandb

    project = os.environ.get("WANDB_PROJECT", "ddpg_jax")
    run = wandb.init(
        project=project, name=folder.name, dir=folder, config=dict(settings),
        settings=wandb.Settings(console="off", silent=True),
    )  # fmt: skip
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
