"""Evaluations as they are made, for TensorBoard and for Weights & Biases: optional extras, off by default."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ddpg_jax.results.history import METRICS_COLUMNS
from ddpg_jax.results.statistics import iqm

MEASURES = METRICS_COLUMNS[3:]
"""What is logged of each agent."""


class Log(Protocol):
    """Where evaluations go."""

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Values by their names, at a number of environment steps."""

    def close(self) -> None:
        """Nothing more will come."""


def evaluation(agents: np.ndarray, metrics_rows: Sequence[str]) -> dict[str, float]:
    """An evaluation: what was measured of each agent, and the statistics over the sound ones.

    Args:
        agents: [N] numbers.
        metrics_rows: their rows in `metrics.csv`.

    Names are "measure/agent-000003", and "measure/iqm", "…/median" and "…/worst" over all agents that train together.
    What has no number (no episode ended, the agent diverged) is left out.
    """
    rows = [line.split(",") for line in metrics_rows]
    columns = {measure: [row[METRICS_COLUMNS.index(measure)] for row in rows] for measure in MEASURES}
    values = {}
    for measure, cells in columns.items():
        numbers = np.array([float(cell) if cell else np.nan for cell in cells])
        found = np.isfinite(numbers)
        for agent, number in zip(agents[found], numbers[found], strict=True):
            values[f"{measure}/agent-{agent:06d}"] = float(number)
        if found.any():
            values[f"{measure}/iqm"] = float(iqm(numbers[found]))
            values[f"{measure}/median"] = float(np.median(numbers[found]))
            values[f"{measure}/worst"] = float(np.min(numbers[found]))
    return values


class TensorBoard:
    """Event files in a folder: `tensorboard --logdir`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        events = folder / "tensorboard"
        number = len(list(events.iterdir())) if events.is_dir() else 0  # a resumed run writes another file
        self._writer = SummaryWriter(str(events), flush_secs=10, filename_suffix=f".{number}")
        self._writer.add_text("settings", "\n".join(f"- {name}: {value}" for name, value in settings.items()))

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        """A scalar for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, env_steps)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; its own variables (WANDB_MODE=offline, WANDB_PROJECT, …) say where it goes."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", "ddpg_jax")
        self._run = wandb.init(
            project=project, name=folder.name, dir=folder, config=dict(settings),
            settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")  # waves of agents begin at step 0 again

    def write(self, env_steps: int, values: Mapping[str, float]) -> None:
        """A row."""
        self._run.log({"env_steps": env_steps, **values})

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


LOGS: dict[str, tuple[str, Callable[[Path, Mapping[str, Any]], Log]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
}
"""Name: the package that it needs, and what makes one for a run folder and its settings."""


def require(names: Sequence[str]) -> None:
    """Refuses logs whose packages are not installed.

    Raises:
        ValueError: names the extra that installs it.
    """
    from importlib.util import find_spec

    for name in names:
        package = LOGS[name][0]
        if find_spec(package) is None:
            raise ValueError(f"log is {name}, but {package} is not installed: pip install 'ddpg_jax[{name}]'")
