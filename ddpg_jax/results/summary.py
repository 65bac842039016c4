"""The summary of a finished run: what `summary.json` holds, and what reports and figures show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.config import Config
from ddpg_jax.results.history import History
from ddpg_jax.results.statistics import Returns, Shortfalls, compare_points, describe_returns, describe_shortfall

LAST_EPISODES = 40
"""Training episodes in the mean that the Keras tutorial reports."""


@dataclass(frozen=True)
class WaveResult:
    """The results of agents that were in memory together."""

    history: History
    final_return: np.ndarray
    """[N] mean greedy returns after training."""
    final_shortfall: np.ndarray
    """[N] mean distances below the optimum from the same start states; NaN where the optimum is not known."""
    selection_return: np.ndarray
    """[N] mean greedy returns from other start states, by which the best agent is chosen."""
    share_at_bounds: np.ndarray
    """[N] shares of the greedy actions after training that were a bound of the action space."""

    @staticmethod
    def join(results: Sequence["WaveResult"]) -> "WaveResult":
        """Joins the results of consecutive agents of one wave, which several processes have trained."""
        return WaveResult(
            History.join([result.history for result in results]),
            final_return=np.concatenate([result.final_return for result in results]),
            final_shortfall=np.concatenate([result.final_shortfall for result in results]),
            selection_return=np.concatenate([result.selection_return for result in results]),
            share_at_bounds=np.concatenate([result.share_at_bounds for result in results]),
        )


@dataclass(frozen=True)
class Difference:
    """How far a point stays behind the best point (see `statistics.Comparison`)."""

    mean: float
    ci95: tuple[float, float]
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class PointSummary:
    """The results of one point of a sweep. The fields are the keys in `summary.json`."""

    point: int
    """The point's number."""
    values: Mapping[str, Any]
    """The swept fields with this point's values."""
    rank: int
    """1 for the best point."""
    updates_per_agent: int
    num_diverged: int
    final_return: Returns
    final_shortfall: Shortfalls | None = None
    """None where the optimum is not known."""
    against_best: Difference


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The results of a finished run. Agents that diverged are left out of all statistics.

    The fields are the keys of `summary.json`, in its order. A key whose field is None is left out, if None is the
    field's default.
    """

    preset: str
    env_id: str
    num_agents: int
    seed: int
    env_steps_per_agent: int
    updates_per_agent: int | None
    """None if the points of a sweep differ in it."""
    compile_seconds: float
    train_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float
    updates_per_second: float
    """Updates of all agents per second of training."""
    device: str
    final_episodes: int
    """Greedy episodes per agent after training."""
    final_return: Returns
    final_shortfall: Shortfalls | None = None
    """None, like the next three, where the optimum is not known."""
    per_agent_final_shortfall: np.ndarray | None = None
    eval_optimum: float | None = None
    """Mean return of the optimum from the start states of the evaluations during training."""
    solved_shortfall: float | None = None
    """Largest shortfall of an agent that has solved the task; None also where the environment does not define that."""
    train_return_last_40: Returns
    """Statistics over the agents' means of their last 40 training episodes."""
    per_agent_final_return: np.ndarray
    per_agent_selection_return: np.ndarray
    per_agent_share_at_bounds: np.ndarray
    """Shares of the greedy actions after training that were a bound of the action space."""
    diverged_agents: Sequence[int]
    diverged_at_env_steps: Sequence[int]
    best_agent: int | None
    """The best of all agents (see `best_agent`)."""
    num_seeds: int | None = None
    """Agents per point of a sweep; None, like the points, in a run with one configuration."""
    points: Sequence[PointSummary] | None = None
    wall_seconds: float = float("nan")
    """Seconds of the whole run; NaN until its other files are written."""

    @property
    def diverged(self) -> dict[int, int]:
        """The agents that diverged, with the environment steps at which that was seen."""
        return dict(zip(self.diverged_agents, self.diverged_at_env_steps, strict=True))

    @property
    def always_at_bounds(self) -> list[int]:
        """The agents, of those that did not diverge, whose every greedy action was a bound of the action space."""
        only = np.flatnonzero(self.per_agent_share_at_bounds == 1.0)
        return sorted({int(agent) for agent in only} - set(self.diverged_agents))

    @property
    def presets(self) -> str:
        """What titles call the preset; where a sweep compares presets, all of them in the order of its points."""
        *others, last = names = self._preset_names()
        return f"presets {', '.join(others)} and {last}" if len(names) > 1 else f"preset {last}"

    @property
    def subject(self) -> str:
        """What figures show: preset and environment; only the environment where a sweep compares presets."""
        names = self._preset_names()
        return self.env_id if len(names) > 1 else f"{names[0]} on {self.env_id}"

    def _preset_names(self) -> list[str]:
        values = [point.values for point in self.points or ()] or [{}]
        return list(dict.fromkeys(str(each.get("preset", self.preset)) for each in values))

    def ranked(self) -> list[PointSummary]:
        """The points of a sweep, the best first; an empty list in a run with one configuration."""
        return sorted(self.points or (), key=lambda point: point.rank)

    def best_of(self, agents: range) -> int | None:
        """The best of some agents, counted from the first of them (see `best_agent`)."""
        finite = ~np.isin(agents, self.diverged_agents)
        return best_agent(self.per_agent_selection_return[agents.start : agents.stop], finite)

    def to_dict(self) -> dict[str, Any]:
        """The content of `summary.json`, in which NaN stands for null."""
        content: dict[str, Any] = _content(self)
        return content


def _content(value: Any) -> Any:
    """Dataclasses within a value as dictionaries, without the fields that are None by default and are None."""
    if is_dataclass(value):
        pairs = [(field, getattr(value, field.name)) for field in fields(value)]
        return {field.name: _content(item) for field, item in pairs if item is not None or field.default is not None}
    return [_content(item) for item in value] if isinstance(value, list | tuple) else value


class Seconds(NamedTuple):
    """The seconds that the parts of a run have taken; the fields are keys of `summary.json`, too."""

    compile_seconds: float
    train_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float


def summarize(
    results: Sequence[WaveResult],
    points: Sequence[tuple[Mapping[str, Any], Config]],
    environment: Environment,
    *,
    preset: str,
    seed: int,
    num_seeds: int,
    final_episodes: int,
    device: str,
    seconds: Seconds,
) -> Summary:
    """Returns the summary of a finished run, except `wall_seconds`.

    Args:
        results: of all waves, in the order of their agents.
        points: the swept values and the configuration of each point: agent a is seed a mod num_seeds of point
            a div num_seeds.
        environment: the task of all agents.
        preset: name of the preset that the configuration began with.
        seed: root seed.
        num_seeds: agents per point.
        final_episodes: greedy episodes per agent after training.
        device: the devices, in words.
        seconds: what has taken how long.
    """
    config = points[0][1]
    agents = _measured(results)
    updates = [point_config.num_updates(config.total_steps) for _, point_config in points]
    is_sweep, optimum, shortfall = len(points) > 1, environment.optimal_returns, None
    if optimum is not None:
        shortfall = describe_shortfall(agents.final_shortfall[agents.finite], environment.solved_shortfall)
    return Summary(
        preset=preset,
        env_id=config.env_id,
        num_agents=len(agents.finite),
        seed=seed,
        env_steps_per_agent=config.total_steps,
        updates_per_agent=updates[0] if len(set(updates)) == 1 else None,
        **seconds._asdict(),
        updates_per_second=sum(updates) * num_seeds / seconds.train_seconds,
        device=device,
        final_episodes=final_episodes,
        final_return=describe_returns(agents.final_return[agents.finite]),
        final_shortfall=shortfall,
        per_agent_final_shortfall=None if optimum is None else agents.final_shortfall,
        eval_optimum=None if optimum is None else float(np.mean(optimum[: config.eval_episodes])),
        solved_shortfall=None if optimum is None else environment.solved_shortfall,
        train_return_last_40=describe_returns(agents.last_training_return),
        per_agent_final_return=agents.final_return,
        per_agent_selection_return=agents.selection_return,
        per_agent_share_at_bounds=agents.share_at_bounds,
        diverged_agents=sorted(agents.diverged),
        diverged_at_env_steps=[agents.diverged[agent] for agent in sorted(agents.diverged)],
        best_agent=best_agent(agents.selection_return, agents.finite),
        num_seeds=num_seeds if is_sweep else None,
        points=_summarize_points(points, agents, environment) if is_sweep else None,
    )


class _Measured(NamedTuple):
    """What was measured of all agents of a run."""

    diverged: dict[int, int]
    finite: np.ndarray
    """[N] whether each agent has not diverged."""
    final_return: np.ndarray
    final_shortfall: np.ndarray
    selection_return: np.ndarray
    share_at_bounds: np.ndarray
    last_training_return: np.ndarray
    """Means over the last 40 training episodes, of those agents that did not diverge and have ended any."""


def _measured(results: Sequence[WaveResult]) -> _Measured:
    """Gathers what was measured in all waves."""
    histories = [result.history for result in results]
    episodes = (returns for history in histories for returns in history.training_returns() if len(returns))
    return _Measured(
        diverged={agent: step for history in histories for agent, step in history.diverged.items()},
        finite=np.concatenate([history.is_finite() for history in histories]),
        final_return=np.concatenate([result.final_return for result in results]),
        final_shortfall=np.concatenate([result.final_shortfall for result in results]),
        selection_return=np.concatenate([result.selection_return for result in results]),
        share_at_bounds=np.concatenate([result.share_at_bounds for result in results]),
        last_training_return=np.array([returns[-LAST_EPISODES:].mean(dtype=np.float64) for returns in episodes]),
    )


def best_agent(selection_returns: np.ndarray, finite: np.ndarray) -> int | None:
    """Returns the position of the best agent; None if all have diverged.

    It is chosen on start states other than the reported ones, because the highest of many reported returns would
    overstate how good that agent is.

    Args:
        selection_returns: [N] mean greedy returns from the start states for selection.
        finite: [N] whether each agent has not diverged.
    """
    returns = np.where(finite, selection_returns, np.nan)
    return int(np.nanargmax(returns)) if np.isfinite(returns).any() else None


def _summarize_points(
    points: Sequence[tuple[Mapping[str, Any], Config]], agents: _Measured, environment: Environment
) -> list[PointSummary]:
    """Returns the summaries of the points of a sweep."""
    of_points = np.arange(len(agents.finite)).reshape(len(points), -1)
    comparisons = compare_points(np.where(agents.finite, agents.final_return, np.nan)[of_points])
    summaries = []
    for index, ((values, config), here, comparison) in enumerate(zip(points, of_points, comparisons, strict=True)):
        finite, shortfall = here[agents.finite[here]], None
        if environment.optimal_returns is not None:
            shortfall = describe_shortfall(agents.final_shortfall[finite], environment.solved_shortfall)
        summaries.append(
            PointSummary(
                point=index,
                values=dict(values),
                rank=comparison.rank,
                updates_per_agent=config.num_updates(config.total_steps),
                num_diverged=len(here) - len(finite),
                final_return=describe_returns(agents.final_return[finite]),
                final_shortfall=shortfall,
                against_best=Difference(comparison.difference, comparison.interval, comparison.p_value),
            )
        )
    return summaries
