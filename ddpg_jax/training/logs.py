"""Evaluations as they are made, for TensorBoard and for Weights & Biases: optional extras, off by default."""

import importlib.util
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ddpg_jax.results.history import Metrics
from ddpg_jax.results.statistics import iqm
from ddpg_jax.training.files import error_that_names

LogEvaluation: TypeAlias = Callable[[int, np.ndarray, Metrics], None]
"""Called with the environment steps per agent, the agents' numbers [N], and an evaluation, columns [N]."""

_Write: TypeAlias = Callable[[int, Mapping[str, float]], None]
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def require_logs(names: Sequence[str]) -> None:
    """Raises ValueError unless the logs' packages are installed and Weights & Biases has a key, or gets one now."""
    for name in names:
        if name not in _PACKAGES:
            raise ValueError(f"log is {name!r}, but must be one of {', '.join(_PACKAGES)}")
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise ValueError(f"log is {name}, but {_PACKAGES[name]} is not installed: pip install {_PACKAGES[name]}")
    if "wandb" in names and not _wandb_can_start():
        raise ValueError(
            "log is wandb, but must have a key: set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline"
        )


def _wandb_can_start() -> bool:
    """Returns whether Weights & Biases has a key, or needs none; in a terminal, it asks for one."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or wandb.run is not None:
        return True
    settings, without_key = wandb.setup().settings, ("offline", "dryrun", "disabled")
    try:
        return settings.mode in without_key or wandb.login(verify=False) or settings.mode in without_key
    except wandb.errors.Error:  # no key and no terminal to ask for it, or a key that cannot be one
        return False


@contextmanager
def open_logs(names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> Iterator[LogEvaluation]:
    """Opens logs of a run with its settings, and closes them at the end of the `with` statement.

    Raises:
        ValueError: if the run of Weights & Biases cannot be started.
        OSError: if a log cannot be written, also from the function that is yielded; the message names it.
    """
    openers = {"tensorboard": _tensorboard, "wandb": _weights_and_biases}
    with ExitStack() as stack:
        writers: list[_Write] = [stack.enter_context(openers[name](folder, settings)) for name in names]

        def log(env_steps: int, agents: np.ndarray, metrics: Metrics) -> None:
            for write in writers:
                write(env_steps, _named_values(agents, metrics))

        yield log


def _named_values(agents: np.ndarray, metrics: Metrics) -> dict[str, float]:
    """Returns "metric/agent-000003" for each agent, and statistics over all agents; values that are NaN are left out.

    Only returns have "metric/worst": of other metrics it is not known which end is the worst.
    """
    values = {}
    for metric, column in metrics._asdict().items():
        finite = np.isfinite(column)
        for agent, value in zip(agents[finite], column[finite], strict=True):
            values[f"{metric}/agent-{agent:06d}"] = float(value)
        if finite.any():
            values[f"{metric}/iqm"] = float(iqm(column[finite]))
            values[f"{metric}/median"] = float(np.median(column[finite]))
            if metric.endswith("_return"):
                values[f"{metric}/worst"] = float(np.min(column[finite]))
    return values


@contextmanager
def _tensorboard(folder: Path, settings: Mapping[str, Any]) -> Iterator[_Write]:
    """Writes an event file for `tensorboard --logdir`, a scalar per value, without a thread.

    `SummaryWriter` writes in a thread, which ends when the disk is full; the run would then wait for it forever.
    """
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar, text

    events = folder / "tensorboard"

    def add(**fields: Any) -> None:
        writer.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def write(env_steps: int, values: Mapping[str, float]) -> None:
        with error_that_names(events):
            for name, value in values.items():
                add(step=env_steps, summary=scalar(name, value))
            writer.flush()

    with error_that_names(events):
        events.mkdir(exist_ok=True)
        writer = RecordWriter(str(events / f"events.out.tfevents.{time.time_ns()}"))
        add(file_version="brain.Event:2")
        add(summary=text("settings", "\n".join(f"- {name}: {value}" for name, value in settings.items())))
    try:
        yield write
    finally:
        with suppress(OSError):  # every evaluation has been flushed
            writer.close()


@contextmanager
def _weights_and_biases(folder: Path, settings: Mapping[str, Any]) -> Iterator[_Write]:
    """Writes to a run of Weights & Biases, configured by its own variables (WANDB_MODE=offline, WANDB_PROJECT, …).

    The run is a new one, or that of the same folder; a run that the program has of its own is not touched.
    """
    import wandb

    known = folder / "wandb/run-id"
    earlier = known.read_text().strip() if known.is_file() else None
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ddpg_jax"),
            name=folder.name,
            dir=folder,
            config=dict(settings),
            # WANDB_RUN_ID, which None stands for, may be the id of the program's own run.
            id=earlier or (uuid.uuid4().hex[:8] if wandb.run is not None else None),
            resume="allow" if earlier else None,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.errors.Error as error:
        raise ValueError(f"log is wandb, but its run cannot be started: {error}") from error
    known.parent.mkdir(exist_ok=True)
    known.write_text(str(run.id))
    run.define_metric("env_steps")
    run.define_metric("*", step_metric="env_steps")
    try:
        yield lambda env_steps, values: run.log({"env_steps": env_steps, **values})
    finally:
        run.finish()
