"""A run as it goes, in TensorBoard and Weights & Biases: optional extras, off by default.

Both use the field's names (`charts/eval_return`, `losses/critic_loss`, …) over the environment steps of an agent. For
all agents of a configuration together, a name holds the interquartile mean.
"""

import importlib.util
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.options import TrainOptions
from ddpg_jax.results.history import Episodes, History, Metrics
from ddpg_jax.results.statistics import iqm, iqm_interval
from ddpg_jax.results.summary import Summary
from ddpg_jax.sweep import label
from ddpg_jax.training.files import error_that_names

MAX_SHOWN = 32
"""Agents, and configurations of a sweep, that have curves; of more, evenly spaced ones do."""

NAMES = {
    "eval_return": "charts/eval_return", "critic_loss": "losses/critic_loss", "actor_loss": "losses/actor_loss",
    "q_mean": "losses/q_values",
}  # fmt: skip
"""The names of what an evaluation measures; `charts/episodic_return` and `charts/SPS` are the others."""

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


class _Writer(NamedTuple):
    """Where a run is logged to."""

    write: Callable[[str, int, Mapping[str, float]], None]
    """Adds a point to a curve (`_curves`) at an agent's environment steps."""
    finish: Callable[[Summary, History], None]
    """Adds the results of all agents."""


class RunLog:
    """Logs a run to its writers; without any, its methods do nothing."""

    def __init__(self, options: TrainOptions, writers: Sequence[_Writer] = ()) -> None:
        self._first, self._num_seeds, self._writers = options.seeds.start, len(options.seeds), writers
        self._agents, self._populations = _curves(options)
        self._before = (-1, 0, 0.0)  # first agent, steps and time of the evaluation before

    def episodes(self, ended: Episodes) -> None:
        """Logs training episodes that have ended in a chunk; of a population one point for all of them."""
        if not self._writers:
            return
        name, returns = "charts/episodic_return", ended.episode_return
        for row in np.flatnonzero(np.isin(ended.agent, [*self._agents])).tolist():
            self._write(self._agents[int(ended.agent[row])], ended.env_steps[row], {name: returns[row]})
        for curve, rows in self._by_population(ended.agent):
            self._write(curve, ended.env_steps[rows].max(), {name: _middle(returns[rows])})

    def evaluation(self, history: History, metrics: Metrics) -> None:
        """Logs an evaluation [N] that has just been added to the history of the agents."""
        if not self._writers:
            return
        before, now = self._before, (int(history.agents[0]), history.env_steps, time.perf_counter())
        # An agent's steps per second since the evaluation before, with the time of this one.
        speed = (now[1] - before[1]) / (now[2] - before[2]) if before[0] == now[0] else np.nan
        self._before = now
        columns = {name: getattr(metrics, field) for field, name in NAMES.items()}
        for row, agent in enumerate(history.agents.tolist()):
            if agent in self._agents:
                values = {name: column[row] for name, column in columns.items()}
                self._write(self._agents[agent], now[1], values | {"charts/SPS": speed})
        for curve, rows in self._by_population(history.agents):
            values = {name: _middle(column[rows]) for name, column in columns.items()}
            returns = metrics.eval_return[rows]
            low, high = iqm_interval(returns[np.isfinite(returns)])
            bounds = {"charts/eval_return_ci95_low": low, "charts/eval_return_ci95_high": high}
            self._write(curve, now[1], values | bounds | {"charts/SPS": speed * len(rows)})

    def finish(self, summary: Summary, history: History) -> None:
        """Logs the results of all agents; call it after the figures of the run folder have been written."""
        for writer in self._writers:
            writer.finish(summary, history)

    def _by_population(self, agents: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the curve of each configuration that has one, and the rows of its agents."""
        configs = (agents - self._first) // self._num_seeds
        for config in np.unique(configs).tolist():
            if config in self._populations:
                yield self._populations[config], np.flatnonzero(configs == config)

    def _write(self, curve: str, env_steps: Any, values: Mapping[str, Any]) -> None:
        finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
        for writer in self._writers:
            writer.write(curve, int(env_steps), finite)


@contextmanager
def open_run_log(options: TrainOptions, folder: Path) -> Iterator[RunLog]:
    """Opens the logs that the options of a run name, and closes them at the end of the `with` statement.

    Raises:
        ValueError: if the run of Weights & Biases cannot be started.
        OSError: if a log cannot be written, also from the methods of what is yielded; the message names it.
    """
    openers: dict[str, Callable[..., Any]] = {"tensorboard": _tensorboard, "wandb": _weights_and_biases}
    with ExitStack() as stack:
        yield RunLog(options, [stack.enter_context(openers[name](options, folder)) for name in options.log])


def _curves(options: TrainOptions) -> tuple[dict[int, str], dict[int, str]]:
    """Returns the names of the curves of agents, by their numbers, and of populations, by those of configurations."""

    def shown(num: int) -> list[int]:
        return np.unique(np.linspace(0, num - 1, min(num, MAX_SHOWN)).round().astype(int)).tolist()

    num_configs, first = len(options.swept), options.seeds.start
    agents = [first + index for index in shown(num_configs * len(options.seeds))]
    population = "population/config-{:03d}" if num_configs > 1 else "population"
    return ({agent: f"agent-{agent:06d}" for agent in agents},
            {config: population.format(config) for config in shown(num_configs)})  # fmt: skip


def _middle(values: np.ndarray) -> float:
    """Returns the interquartile mean of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(iqm(finite)) if len(finite) else np.nan


@contextmanager
def _tensorboard(options: TrainOptions, folder: Path) -> Iterator[_Writer]:
    """Writes a folder of event files per curve for `tensorboard --logdir`, without a thread.

    `SummaryWriter` writes in a thread, which ends when the disk is full; the run would then wait for it forever.
    """
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import hparams, scalar

    events = folder / "tensorboard"
    files: dict[str, RecordWriter] = {}

    def add(curve: str, *records: Mapping[str, Any]) -> None:
        with error_that_names(events):
            for fields in records:
                files[curve].write(Event(wall_time=time.time(), **fields).SerializeToString())
            files[curve].flush()

    def start(curve: str, config: int, **numbers: int) -> Any:
        """Begins a file with what the HParams tab shows; returns the record that ends it."""
        with error_that_names(events):
            (events / curve).mkdir(parents=True, exist_ok=True)
            files[curve] = RecordWriter(str(events / curve / f"events.out.tfevents.{time.time_ns()}"))
        settings = numbers | {"config": config} | options.swept[config].config.to_dict()
        plain = {name: v if isinstance(v, bool | int | float) else str(v) for name, v in settings.items()}
        experiment, session, end = hparams(plain, {"charts/eval_return": None})
        add(curve, {"file_version": "brain.Event:2"}, {"summary": experiment}, {"summary": session})
        return end

    def write(curve: str, env_steps: int, values: Mapping[str, float]) -> None:
        add(curve, *({"step": env_steps, "summary": scalar(name, value)} for name, value in values.items()))

    def finish(summary: Summary, history: History) -> None:
        for curve in files if summary.complete else ():
            add(curve, {"summary": end})

    agents, populations = _curves(options)
    try:
        for agent, curve in agents.items():
            config, seed = divmod(agent - options.seeds.start, len(options.seeds))
            start(curve, config, seed=options.seeds.start + seed)
        for config, curve in populations.items():
            end = start(curve, config)
        yield _Writer(write, finish)
    finally:
        for file in files.values():
            with suppress(OSError):  # all that was written has been flushed
                file.close()


@contextmanager
def _weights_and_biases(options: TrainOptions, folder: Path) -> Iterator[_Writer]:
    """Writes to a run of Weights & Biases, configured by its own variables (WANDB_MODE=offline, WANDB_PROJECT, …).

    The run is a new one, or that of the same folder; a run that the program has of its own is not touched. It has the
    curves of populations, and the agents as a table. Sweeps over the same fields of one task form a group.
    """
    import wandb

    run = _start_wandb(options, folder)

    def write(curve: str, env_steps: int, values: Mapping[str, float]) -> None:
        kind, _, config = curve.partition("/")
        if kind == "population":
            named = {f"{name}/{config}" if config else name: value for name, value in values.items()}
            run.log({"env_steps": env_steps, **named})

    def finish(summary: Summary, history: History) -> None:
        pictures = {path.stem: wandb.Image(str(path)) for path in sorted(folder.glob("*.png"))}
        run.log({"agents": wandb.Table(dataframe=_agents_table(options, summary, history)), **pictures})
        best = summary.ranked()[0] if summary.configs else None
        final = best.final_return if best else summary.final_return
        low, high = final.iqm_ci95
        results = {"final_return": final.iqm, "final_return_ci95_low": low, "final_return_ci95_high": high}
        count = {"num_diverged": len(summary.diverged), "best_agent": summary.best_agent, "complete": summary.complete}
        run.summary.update(results | ({"best_config": label(best.values)} if best else {}) | count)

    try:
        yield _Writer(write, finish)
    finally:
        run.finish()


def _start_wandb(options: TrainOptions, folder: Path) -> Any:
    """Returns a new run of Weights & Biases, or that of the folder; raises ValueError if it cannot be started."""
    import wandb

    known = folder / "wandb/run-id"
    earlier = known.read_text().strip() if known.is_file() else None
    base, fields = options.swept[0].config, list(options.swept[0].values)
    swept = {name: [each.values[name] for each in options.swept] for name in fields}
    group = f"{', '.join(fields)} on {base.env_id}"[:128] if fields else None
    about = {"preset": options.preset, "seed": options.seed, "seeds": [options.seeds.start, options.seeds.stop]}
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ddpg_jax"),
            name=folder.name,
            group=os.environ.get("WANDB_RUN_GROUP", group),
            dir=folder,
            config=about | base.to_dict() | swept,
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
    return run


def _agents_table(options: TrainOptions, summary: Summary, history: History) -> Any:
    """Returns a row per agent: its configuration and seed, its last evaluation and its final results."""
    import pandas as pd

    config, seed = np.divmod(history.agents - options.seeds.start, len(options.seeds))
    last = {name: getattr(history.metrics, field)[-1:] for field, name in NAMES.items()}
    table = {
        "agent": history.agents,
        "config": [label(options.swept[each].values) for each in config],
        "seed": options.seeds.start + seed,
        **{name: rows[0] if len(rows) else np.nan for name, rows in last.items()},
        "final_return": summary.per_agent_final_return,
        "final_shortfall": summary.per_agent_final_shortfall,
        "diverged_at": [summary.diverged.get(agent) for agent in history.agents.tolist()],
    }
    frame = pd.DataFrame(table)
    return frame.astype(object).where(frame.notna(), None)
