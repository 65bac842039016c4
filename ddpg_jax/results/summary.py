"""The summary of a run: what `summary.json` holds, and what reports and figures show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from math import isfinite, nan
from typing import Any, NamedTuple, cast, get_args, get_origin, get_type_hints

import numpy as np

from ddpg_jax.results import statistics
from ddpg_jax.results.history import History
from ddpg_jax.results.statistics import Difference, Returns, Shortfalls, describe_returns, describe_shortfall
from ddpg_jax.results.text import decimal, interval, json_values
from ddpg_jax.sweep import SweptConfig, label

LAST_EPISODES = 40
"""Training episodes in the mean that the Keras tutorial reports."""
MOST_CLIPPED = 0.01
"""Share of clipped targets above which a note says what to set."""


class Finals(NamedTuple):
    """What greedy episodes after training have measured, arrays [N]."""

    final_return: np.ndarray  # mean return from the reported start states
    final_shortfall: np.ndarray  # mean distance below the optimum from these; NaN where the optimum is not known
    selection_return: np.ndarray  # mean return from other start states, by which the best agent is chosen
    share_at_bounds: np.ndarray  # share of the greedy actions that were a bound of the action space

    @staticmethod
    def unknown(num_agents: int) -> "Finals":
        """Returns NaN for agents that were stopped before the end of their training."""
        return Finals(*(np.full(num_agents, np.nan) for _ in Finals._fields))

    @staticmethod
    def join(finals: Sequence["Finals"]) -> "Finals":
        """Joins the results of several sets of agents, in this order."""
        return Finals(*map(np.concatenate, zip(*finals, strict=True)))


class Seconds(NamedTuple):
    """The seconds that a run has spent on each of its tasks; the fields are also keys of `summary.json`."""

    compile_seconds: float
    train_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float


@dataclass(frozen=True, kw_only=True)
class ConfigSummary:
    """The results of one configuration of a sweep. The fields are keys of `summary.json`."""

    config: int  # its number, counted from 0
    values: Mapping[str, Any]  # the swept fields with its values
    rank: int  # 1 for the best
    updates_per_agent: int
    num_diverged: int
    final_return: Returns
    final_shortfall: Shortfalls | None  # None where the optimum is not known
    against_best: Difference


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Summary:
    """The results of a run. Agents that diverged are left out of all statistics.

    The fields are the keys of `summary.json`, in its order. Returns are in the environment's units; arrays are [N].
    Where the optimum is not known, what depends on it is None.
    """

    preset: str | None  # that the configuration began with
    env_id: str
    complete: bool  # False if training was stopped before its end; then there are no final returns
    num_agents: int
    seed: int  # root seed
    seeds: tuple[int, int]  # of each configuration: from the first number to the one before the second
    env_steps_per_agent: int
    updates_per_agent: int | None  # None if the configurations of a sweep differ in it
    compile_seconds: float
    train_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float
    updates_per_second: float  # updates of all agents per second of training
    device: str
    eval_episodes: int  # greedy episodes per agent at each evaluation during training
    eval_return: Returns  # at the last of these evaluations
    eval_optimum: float | None  # mean return of the optimum from their start states
    final_episodes: int  # greedy episodes per agent after training
    final_return: Returns
    final_optimum: float | None  # mean return of the optimum from their start states
    final_shortfall: Shortfalls | None
    per_agent_final_shortfall: np.ndarray | None
    solved_shortfall: float | None  # the largest of an agent that has solved the task; None also if not defined
    train_return_last_40: Returns  # statistics over the agents' means of their last 40 training episodes
    per_agent_final_return: np.ndarray
    per_agent_selection_return: np.ndarray
    per_agent_share_at_bounds: np.ndarray  # shares of the greedy actions after training that were a bound
    per_agent_clipped_targets: np.ndarray | None  # shares outside [value_min, value_max]; None if not categorical
    always_at_bounds: Sequence[int]  # agents that did not diverge and whose every greedy action was a bound
    diverged_agents: Sequence[int]
    diverged_at_env_steps: Sequence[int]
    best_agent: int | None  # the best of all agents by their selection returns
    configs: Sequence[ConfigSummary] | None = None  # of a sweep; None in a run with one configuration
    notes: Sequence[str]  # what a reader of the results should know, a sentence each
    wall_seconds: float = nan  # of the whole run; NaN until its other files are written

    def __repr__(self) -> str:
        final, count, of = self.final_return, f"{self.num_agents} agents", ""
        if self.configs:
            final, of = self.ranked()[0].final_return, f" of {label(self.ranked()[0].values)}"
            count = f"{len(self.configs)} configs x {self.num_seeds} seeds"
        measured = f"IQM {decimal(final.iqm)} {interval(final.iqm_ci95)}".strip() + of
        measured = measured if isfinite(final.iqm) else "no IQM"
        return f"Summary({count}, {self.env_id}, {measured}{'' if self.complete else ', stopped early'})"

    @property
    def num_seeds(self) -> int:
        """Agents per configuration."""
        return self.seeds[1] - self.seeds[0]

    @property
    def diverged(self) -> dict[int, int]:
        """The agents that diverged, with the environment steps at which that was seen."""
        return dict(zip(self.diverged_agents, self.diverged_at_env_steps, strict=True))

    @property
    def swept_fields(self) -> list[str]:
        """The fields in which the configurations of a sweep differ."""
        return list(dict.fromkeys(name for each in self.configs or () for name in each.values))

    @property
    def subject(self) -> str:
        """The title of figures: preset and environment; only the environment where a sweep compares presets."""
        preset = None if "preset" in self.swept_fields else self.preset
        return f"{preset} on {self.env_id}" if preset else self.env_id

    def ranked(self) -> list[ConfigSummary]:
        """The configurations of a sweep, the best first; an empty list in a run with one configuration."""
        return sorted(self.configs or (), key=lambda each: each.rank)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `summary.json`: values that JSON holds, None for numbers that are not finite."""
        return cast(dict[str, Any], json_values(asdict(self)))

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Summary":
        """Returns the summary that `to_dict` described; ValueError if a key is missing or has another kind of value."""
        try:
            return cast(Summary, _from_json(content, Summary))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"summary.json cannot be read: {type(error).__name__} {error}") from error


def _from_json(content: Any, kind: Any) -> Any:
    """Returns a value of this type; null is NaN where the type is a number, or an array of numbers."""
    options = get_args(kind)
    if type(None) in options:
        return None if content is None else _from_json(content, options[0])
    if is_dataclass(kind):
        make, hints = cast(Any, kind), get_type_hints(kind)
        return make(**{name: _from_json(item, hints[name]) for name, item in content.items()})
    if kind is float:
        return nan if content is None else float(content)
    if kind is np.ndarray:
        return np.array([nan if item is None else item for item in content])
    if get_origin(kind) in (tuple, Sequence):
        return tuple(_from_json(item, options[0]) for item in content)
    return content


def summarize(
    history: History,
    finals: Finals,
    swept: Sequence[SweptConfig],
    *,
    env_id: str,
    optimal_returns: Sequence[float] | None,
    solved_shortfall: float | None,
    preset: str | None,
    seed: int,
    seeds: range,
    num_updates: Sequence[int],
    device: str,
    seconds: Seconds,
    complete: bool,
) -> Summary:
    """Returns the summary of a run, except `wall_seconds`; see its fields.

    The history and the finals are of N = C S agents: of the first of C configurations with all S seeds, then of the
    next. `num_updates` [C] are per agent. `optimal_returns` are the optimum's from the first start states of
    evaluations; None: not known.
    """
    episodes = swept[0].config.eval_episodes or 0, swept[0].config.final_episodes or 0
    known = optimal_returns is not None
    optima = [float(np.mean(np.asarray(optimal_returns)[:num])) if known else None for num in episodes]
    summary = Summary(
        preset=preset,
        env_id=env_id,
        complete=complete,
        seed=seed,
        seeds=(seeds.start, seeds.stop),
        env_steps_per_agent=history.env_steps,
        updates_per_agent=num_updates[0] if len(set(num_updates)) == 1 else None,
        **seconds._asdict(),
        updates_per_second=sum(num_updates) * len(seeds) / seconds.train_seconds if seconds.train_seconds else nan,
        device=device,
        eval_episodes=episodes[0],
        eval_optimum=optima[0],
        final_episodes=episodes[1],
        final_optimum=optima[1],
        solved_shortfall=solved_shortfall if known else None,
        **_measured(history, finals, swept, known, solved_shortfall),
    )
    if len(swept) == 1:
        return summary
    return replace(summary, configs=_summarize_configs(swept, num_updates, history, finals, summary))


def summarize_config(sweep: Summary, config: int, history: History, finals: Finals, swept: SweptConfig) -> Summary:
    """Returns the summary of one configuration of a sweep, from its own agents; the seconds are those of the sweep."""
    measured = _measured(history, finals, [swept], sweep.final_optimum is not None, sweep.solved_shortfall)
    updates = sweep.configs[config].updates_per_agent if sweep.configs else sweep.updates_per_agent
    preset = swept.values.get("preset", sweep.preset)
    return replace(sweep, configs=None, preset=preset, updates_per_agent=updates, **measured)


def _measured(
    history: History, finals: Finals, swept: Sequence[SweptConfig], optimum: bool, solved_shortfall: float | None
) -> dict[str, Any]:
    """Returns the fields of a summary that are measured of the agents."""
    finite, clipped = history.is_finite(), history.clipped_targets()
    final = finite & np.isfinite(finals.final_return)
    last = history.metrics.eval_return[-1:].reshape(-1)
    episodes = (returns for returns in history.training_returns() if len(returns))
    last_training = np.array([returns[-LAST_EPISODES:].mean(dtype=np.float64) for returns in episodes])
    best = best_agent(finals.selection_return, finite)
    return {
        "num_agents": len(finite),
        "eval_return": describe_returns(last[np.isfinite(last)]),
        "final_return": describe_returns(finals.final_return[final]),
        "final_shortfall": describe_shortfall(finals.final_shortfall[final], solved_shortfall) if optimum else None,
        "per_agent_final_shortfall": finals.final_shortfall if optimum else None,
        "train_return_last_40": describe_returns(last_training),
        "per_agent_final_return": finals.final_return,
        "per_agent_selection_return": finals.selection_return,
        "per_agent_share_at_bounds": finals.share_at_bounds,
        "per_agent_clipped_targets": clipped if any(each.config.critic_atoms > 1 for each in swept) else None,
        "always_at_bounds": history.agents[finite & (finals.share_at_bounds == 1.0)].tolist(),
        "diverged_agents": sorted(history.diverged),
        "diverged_at_env_steps": [history.diverged[agent] for agent in sorted(history.diverged)],
        "best_agent": None if best is None else int(history.agents[best]),
        "notes": _notes(final, clipped, swept),
    }


def best_agent(selection_returns: np.ndarray, finite: np.ndarray) -> int | None:
    """Returns the position of the best of the finite agents [N], those that have not diverged; None if it is not known.

    It is chosen on start states other than the reported ones, because the highest of many reported returns would
    overstate how good that agent is.
    """
    returns = np.where(finite, selection_returns, np.nan)
    return int(np.nanargmax(returns)) if np.isfinite(returns).any() else None


def _notes(final: np.ndarray, clipped: np.ndarray, swept: Sequence[SweptConfig]) -> list[str]:
    """Says which results have no interval, and where a categorical critic has clipped too many targets.

    `final` [N] are the agents with a final return, `clipped` [N] are `History.clipped_targets`.
    """
    notes, num_configs = [], len(swept)
    if final.any() and final.reshape(num_configs, -1).sum(axis=1).min() < statistics.FEWEST:
        notes.append(f"{'configurations with ' if num_configs > 1 else ''}{statistics.NO_INTERVAL}")
    for shares, (values, config) in zip(clipped.reshape(num_configs, -1), swept, strict=True):
        share = float(np.mean(shares[np.isfinite(shares)])) if np.isfinite(shares).any() else 0.0
        if config.critic_atoms > 1 and share > MOST_CLIPPED:
            notes.append(
                f"{100 * share:.1f}% of the critic's targets{f' of {label(values)}' if num_configs > 1 else ''} were "
                f"outside [value_min, value_max] = [{config.value_min:g}, {config.value_max:g}] and were clipped: set "
                f"both so that they hold the discounted returns times reward_scale ({config.reward_scale:g})"
            )
    return notes


def _summarize_configs(
    swept: Sequence[SweptConfig], num_updates: Sequence[int], history: History, finals: Finals, summary: Summary
) -> list[ConfigSummary]:
    arrays = history.is_finite(), finals.final_return, finals.final_shortfall
    finite, returns, shortfalls = (array.reshape(len(swept), -1) for array in arrays)
    kept = finite & np.isfinite(returns)
    found = []
    for config, (rank, against_best) in enumerate(statistics.compare_configs(np.where(kept, returns, np.nan))):
        shortfall = describe_shortfall(shortfalls[config, kept[config]], summary.solved_shortfall)
        found.append(
            ConfigSummary(
                config=config,
                values=dict(swept[config].values),
                rank=rank,
                updates_per_agent=num_updates[config],
                num_diverged=int(np.sum(~finite[config])),
                final_return=describe_returns(returns[config, kept[config]]),
                final_shortfall=None if summary.final_optimum is None else shortfall,
                against_best=against_best,
            )
        )
    return found
