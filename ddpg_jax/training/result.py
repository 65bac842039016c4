"""What training gives back, in memory or from a folder: measurements, statistics and policies of all agents."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.config import Config
from ddpg_jax.results import csv_files, plots, sweep_plots
from ddpg_jax.results.history import History
from ddpg_jax.results.html_report import report_page
from ddpg_jax.results.summary import Finals, Seconds, Summary, best_agent, summarize, summarize_config
from ddpg_jax.sweep import SweptConfig
from ddpg_jax.training.checkpoint import Trained
from ddpg_jax.training.files import write_text, write_whole
from ddpg_jax.training.plan import Plan
from ddpg_jax.training.policy import Policy, has_own_network, policy_folders, read_policy, write_policy
from ddpg_jax.training.run_folder import RunFolder, read_config, swept_configs, write_json, write_tables
from ddpg_jax.training.stopwatch import Stopwatch


@dataclass(frozen=True, eq=False)
class Result:
    """The result of training C configurations with S seeds each: N = C S agents.

    An agent is known by its configuration and its seed. Arrays [N] have all seeds of the first configuration, then all
    of the next.
    """

    configs: tuple[SweptConfig, ...]
    """The configurations, each with the values in which it differs from the others."""
    seeds: range
    """The seeds of every configuration."""
    seed: int
    """Root seed."""
    history: History
    """What was measured during training: learning curves, losses, training episodes."""
    finals: Finals
    """What was measured after training, arrays [N]."""
    policies: tuple[Policy, ...]
    """The trained actors, one `Policy` per shape of networks."""
    summary: Summary
    """Statistics over the agents; the content of `summary.json`."""
    details: Mapping[str, Any]
    """How the run was started, versions, devices; the content of `config.json`."""
    folder: Path | None = None
    """The run folder, if there is one."""

    def __repr__(self) -> str:
        return f"Result({self.summary})"

    def __len__(self) -> int:
        return len(self.configs)

    def __getitem__(self, config: int) -> "Result":
        """Returns the result of one configuration of a sweep, counted from 0, as if it had been trained alone.

        Its agents have the numbers of their seeds.

        Raises:
            IndexError: if there is no such configuration.
        """
        number, num = range(len(self.configs))[config], len(self.seeds)
        rows, swept = np.arange(number * num, (number + 1) * num), self.configs[number]
        agents = self.history.agents[rows]
        history, finals = self.history.select(rows, self.seeds), Finals(*(column[rows] for column in self.finals))
        summary = summarize_config(self.summary, number, history, finals, swept)
        best = best_agent(finals.selection_return, history.is_finite())
        mine = [np.flatnonzero(np.isin(policy.agents, agents)) for policy in self.policies]
        policies = [policy[rows] for policy, rows in zip(self.policies, mine, strict=True) if len(rows)]
        about: dict[str, Any] = {
            "preset": summary.preset,
            "config": swept.config.to_dict(),
            "configs": [{"values": {}, "changes": {}}],
        }
        return replace(
            self,
            configs=(SweptConfig({}, swept.config),),
            history=history,
            finals=finals,
            policies=tuple(
                replace(policy, agents=tuple(self.seeds), config=swept.config, best_agent=best) for policy in policies
            ),
            summary=summary,
            details={**self.details, **about},
            folder=None,
        )

    @property
    def name(self) -> str:
        """The result's name in comparisons: its folder, or what was trained."""
        return str(self.folder) if self.folder else self.summary.subject

    @property
    def config(self) -> Config:
        """The configuration; of a sweep the first."""
        return self.configs[0].config

    @property
    def policy(self) -> Policy:
        """The greedy policies of all N agents.

        Raises:
            ValueError: if there is no one policy of all agents; it says where policies are.
        """
        if len(self.policies) > 1:
            raise ValueError(f"policy does not exist, because the sweep has networks of {len(self.policies)} shapes: "
                             f"use result[c].policy of configuration c")  # fmt: skip
        if not self.policies:
            raise ValueError("policy has a network that the configuration does not describe: use "
                             "load_policy(folder, actor=...)")  # fmt: skip
        return self.policies[0]

    def plot(self) -> Any:
        """Returns a Matplotlib figure: greedy returns against environment steps; of a sweep one curve per config."""
        return _figures(self)["learning_curve.png"]()

    def to_dataframe(self) -> Any:
        """Returns the rows of `metrics.csv` as a pandas DataFrame: one row per agent per evaluation."""
        import pandas as pd

        return pd.DataFrame(csv_files.metrics_columns(self.history, self.seeds, len(self.configs)))

    def save(self, folder: str | Path) -> "Result":
        """Writes the result into a new or empty folder in the form of a run folder, which `ddpg_jax.load` reads.

        Raises:
            ValueError: if the folder is not empty or cannot be made.
            OSError: if something cannot be written.
        """
        with RunFolder.create(Path(folder)) as run_folder:
            return write_result(self, run_folder)


def make_result(
    plan: Plan,
    trained: Sequence[Trained],
    policies: Sequence[Policy],
    details: Mapping[str, Any],
    watch: Stopwatch,
    *,
    complete: bool,
) -> Result:
    """Returns the result of a run, whose setups have been trained in their order, perhaps not all of them."""
    missing = [Trained(History(each.agents), Finals.unknown(len(each.agents)))
               for each in plan.setups[len(trained) :]]  # fmt: skip
    everything = [*trained, *missing]
    order = np.argsort(np.concatenate([each.history.agents for each in everything]), kind="stable")
    history = History.join([each.history for each in everything])
    finals = Finals(*(column[order] for column in Finals.join([each.finals for each in everything])))
    options, updates = plan.options, np.zeros(len(plan.options.swept), int)
    for each, mine in zip(plan.setups, everything, strict=True):
        updates[list(each.configs)] = each.setup.num_updates(mine.history.env_steps)
    summary = summarize(
        history,
        finals,
        options.swept,
        env_id=plan.task.environment.env_id,
        optimal_returns=plan.task.optimal_returns,
        solved_shortfall=plan.task.solved_shortfall,
        preset=options.preset,
        seed=options.seed,
        seeds=options.seeds,
        num_updates=updates.tolist(),
        device=plan.device,
        seconds=Seconds(watch.compiling, watch.training, watch.evaluating, watch.saving),
        complete=complete,
    )
    summary = replace(summary, wall_seconds=watch.wall)
    return Result(options.swept, options.seeds, options.seed, history, finals, tuple(policies), summary, details)


def write_result(result: Result, folder: RunFolder, watch: Stopwatch | None = None) -> Result:
    """Writes tables, policies, figures and the report of a result into a folder, and last its summary.

    Args:
        result: with or without a folder.
        folder: where it goes.
        watch: of the run; default: its seconds are in the summary.

    Returns:
        The result in the folder.

    Raises:
        OSError: if something cannot be written; the message names it.
    """
    path, num_configs = folder.path, len(result.configs)
    write_json(path / "config.json", result.details)
    write_tables(path, result.history, result.seeds, num_configs)
    for index, policy in enumerate(result.policies):
        write_policy(path / "policy" / (f"shape-{index}" if len(result.policies) > 1 else ""), policy)
    params = result.config.to_dict()
    write_json(path / "info.json", {"env_id": params.pop("env_id"), "params": params})  # as the TensorFlow gist does
    if num_configs > 1:
        write_text(path / "configs.csv", csv_files.configs_csv(result.summary))
    for name, draw in _figures(result).items():
        _write_or_note(path / name, partial(_png, draw))
    summary = replace(result.summary, wall_seconds=watch.wall) if watch else result.summary
    _write_or_note(path / "report.html", lambda: report_page(path, summary, result.history).encode())
    write_json(path / "summary.json", summary.to_dict())
    return replace(result, summary=summary, folder=path)


def _figures(result: Result) -> dict[str, Callable[[], Any]]:
    """Returns what draws the figures of a result, by the names of their files."""
    history, summary = result.history, result.summary
    curve = {"learning_curve.png": lambda: plots.learning_curve(history, summary)}
    if len(result.configs) > 1:
        return curve | {"sweep.png": lambda: sweep_plots.final_returns(summary)}
    return curve | {"training_returns.png": lambda: plots.training_returns(history, summary)}


def _png(draw: Callable[[], Any]) -> bytes:
    return plots.png(draw())


def _write_or_note(path: Path, make: Callable[[], bytes]) -> None:
    """Writes a figure or the page. One that cannot be made costs a note, not the results of the run."""
    try:
        data = make()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"note: {path.name} could not be drawn: {reason}", file=sys.stderr)
    else:
        write_whole(path, data)


def load(folder: Path) -> Result:
    """Returns the result in the folder of a finished run.

    Raises:
        ValueError: if the folder does not hold a finished run, or a file in it is damaged.
    """
    details = read_config(folder)
    texts = []
    for name in ("summary.json", "metrics.csv", "episodes.csv"):
        try:
            texts.append((folder / name).read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = f"it has no {name}" if isinstance(error, FileNotFoundError) else f"{name}: {error}"
            raise ValueError(f"{folder} is not the folder of a finished run: {reason}") from error
    try:
        summary = Summary.from_dict(json.loads(texts[0]))
        history = History.from_tables(texts[1], texts[2], summary.diverged, summary.per_agent_clipped_targets)
        finals = _finals_of(summary)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder} is not the folder of a finished run: {error}") from error
    paths = policy_folders(folder)
    policies = () if any(map(has_own_network, paths)) else tuple(map(read_policy, paths))
    start, stop = details["seeds"]
    swept = swept_configs(details)
    return Result(swept, range(start, stop), details["seed"], history, finals, policies, summary, details, folder)


def _finals_of(summary: Summary) -> Finals:
    shortfall = summary.per_agent_final_shortfall
    return Finals(
        final_return=summary.per_agent_final_return,
        final_shortfall=np.full(summary.num_agents, np.nan) if shortfall is None else shortfall,
        selection_return=summary.per_agent_selection_return,
        share_at_bounds=summary.per_agent_share_at_bounds,
    )
