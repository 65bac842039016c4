"""What a finished run has shown: the content of `summary.json`."""

import csv
import io
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.results import statistics
from ddpg_jax.results.history import History
from ddpg_jax.values import shown

LAST_EPISODES = 40
"""Training episodes in the mean that the Keras tutorial reports."""


FINAL_EPISODES = 512
"""Greedy episodes per agent in the final evaluation, from start states common to all agents."""


class WaveResult(NamedTuple):
    """What training a wave of agents has given."""

    history: History
    final_return: np.ndarray
    """[N] means over `FINAL_EPISODES`."""
    final_shortfall: np.ndarray
    """[N] mean distances below the optimum from the same start states; NaN where the optimum is not known."""
    selection_return: np.ndarray
    """[N] means over as many episodes from other start states, by which the best agent is chosen."""

    @staticmethod
    def join(results: "list[WaveResult]") -> "WaveResult":
        """Returns the results of several processes as one."""
        history, *measured = zip(*results, strict=True)
        return WaveResult(History.join(list(history)), *map(np.concatenate, measured))


def summarize(session: Any, preset: str, results: list[WaveResult], device: str) -> dict[str, Any]:
    """The content of `summary.json`, but for `wall_seconds`. Agents that diverged are left out of its statistics."""
    config, watch = session.config, session.stopwatch
    sound = np.concatenate([result.history.sound() for result in results])
    per_agent = np.concatenate([result.final_return for result in results])
    updates = [point.config.num_updates(config.total_steps) for point in session.plan.points]
    summary = {
        "preset": preset,
        "env_id": config.env_id,
        "num_agents": session.options.num_agents,
        "seed": session.options.seed,
        "env_steps_per_agent": config.total_steps,
        "updates_per_agent": updates[0] if len(set(updates)) == 1 else None,
        "compile_seconds": watch.compiling,
        "train_seconds": watch.training,
        "evaluation_seconds": watch.evaluating,
        "checkpoint_seconds": watch.saving,
        "updates_per_second": sum(updates) * session.options.seeds / watch.training,
        "device": device,
        "final_episodes": FINAL_EPISODES,
        "final_return": statistics.describe_returns(per_agent[sound]),
    }
    optimal_returns = session.environment.optimal_returns
    shortfall = None
    if optimal_returns is not None:
        shortfall = np.concatenate([result.final_shortfall for result in results])
        summary["final_shortfall"] = statistics.describe_shortfall(shortfall[sound])
        summary["per_agent_final_shortfall"] = shortfall
        summary["eval_optimum"] = float(np.mean(optimal_returns[: config.eval_episodes]))
    summary["train_return_last_40"] = _last_training_returns([result.history for result in results])
    summary["per_agent_final_return"] = per_agent
    summary["per_agent_selection_return"] = np.concatenate([result.selection_return for result in results])
    diverged: dict[int, int] = {}
    for result in results:
        diverged |= result.history.diverged
    summary["diverged_agents"] = sorted(diverged)
    summary["diverged_at_env_steps"] = [diverged[agent] for agent in sorted(diverged)]
    summary["best_agent"] = best_agent(summary, range(session.options.num_agents))
    if len(session.plan.points) > 1:
        summary["num_seeds"] = session.options.seeds
        summary["points"] = _points(session, per_agent, shortfall, sound)
    return summary


def best_agent(summary: dict[str, Any], agents: range) -> int | None:
    """The best of some agents, counted from the first of them; None if all have diverged.

    It is the one with the highest mean return from start states other than those that are reported: the highest of
    many reported returns would be too good to be true.
    """
    returns = np.array([summary["per_agent_selection_return"][agent] for agent in agents])
    returns[[agent - agents.start for agent in summary["diverged_agents"] if agent in agents]] = np.nan
    return int(np.nanargmax(returns)) if np.isfinite(returns).any() else None


def _points(
    session: Any, per_agent: np.ndarray, shortfall: np.ndarray | None, sound: np.ndarray
) -> list[dict[str, Any]]:
    """What each point of a sweep has shown, and how it compares with the best of them."""
    shape = (len(session.plan.points), session.options.seeds)
    returns = np.where(sound, per_agent, np.nan).reshape(shape)
    comparisons = statistics.compare_points(returns)
    points = []
    for index, (point, comparison) in enumerate(zip(session.plan.points, comparisons, strict=True)):
        fine = sound.reshape(shape)[index]
        content = {
            "point": index,
            "values": dict(point.values),
            "rank": comparison.rank,
            "updates_per_agent": point.config.num_updates(session.config.total_steps),
            "num_diverged": int(np.sum(~fine)),
            "final_return": statistics.describe_returns(returns[index][fine]),
        }
        if shortfall is not None:
            content["final_shortfall"] = statistics.describe_shortfall(shortfall.reshape(shape)[index][fine])
        content["against_best"] = {
            "mean": comparison.difference,
            "ci95": list(comparison.interval),
            "p_adjusted": comparison.p_value,
        }
        points.append(content)
    return points


def points_csv(summary: dict[str, Any]) -> str:
    """The text of `points.csv`: the points of a sweep and what they reached, the best first."""
    points = sorted(summary["points"], key=lambda point: point["rank"])
    fields = list(points[0]["values"])
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["rank", "point", *fields, "final_return_iqm", "ci95_low", "ci95_high", "worst", "num_solved",
         "against_best_mean", "against_best_low", "against_best_high", "p_adjusted"]
    )  # fmt: skip
    for point in points:
        final, behind = point["final_return"], point["against_best"]
        numbers = [final["iqm"], *final["iqm_ci95"], final["worst"]]
        solved = point.get("final_shortfall", {}).get("num_solved", "")
        compared = [behind["mean"], *behind["ci95"], behind["p_adjusted"]]
        writer.writerow(
            [point["rank"], point["point"], *(shown(point["values"][field]) for field in fields),
             *map(_cell, numbers), solved, *map(_cell, compared)]
        )  # fmt: skip
    return file.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.6g}"


def _last_training_returns(histories: list[History]) -> dict[str, Any]:
    """The agents' means over their last 40 training episodes, described."""
    means = []
    for history in histories:
        for returns in history.training_returns():
            if len(returns):
                means.append(returns[-LAST_EPISODES:].mean(dtype=np.float64))
    return statistics.describe_returns(np.asarray(means))
