"""What a finished run has shown: the content of `summary.json`."""

from typing import Any

import numpy as np

from ddpg_jax import statistics
from ddpg_jax.history import History
from ddpg_jax.session import FINAL_EPISODES, Session, WaveResult

LAST_EPISODES = 40
"""Training episodes in the mean that the Keras tutorial reports."""


def summarize(session: Session, preset: str, results: list[WaveResult], device: str) -> dict[str, Any]:
    """The content of `summary.json`, but for `wall_seconds`. Agents that diverged are left out of its statistics."""
    config, watch = session.config, session.stopwatch
    final_returns = np.concatenate([result.final_returns for result in results])
    sound = np.concatenate([result.history.sound() for result in results])
    per_agent = final_returns.mean(axis=1, dtype=np.float64)
    updates = config.num_updates(config.total_steps)
    summary = {
        "preset": preset,
        "env_id": config.env_id,
        "num_agents": session.num_agents,
        "seed": session.seed,
        "env_steps_per_agent": config.total_steps,
        "updates_per_agent": updates,
        "compile_seconds": watch.compiling,
        "train_seconds": watch.training,
        "evaluation_seconds": watch.evaluating,
        "checkpoint_seconds": watch.saving,
        "updates_per_second": updates * session.num_agents / watch.training,
        "device": device,
        "final_episodes": FINAL_EPISODES,
        "final_return": statistics.describe_returns(per_agent[sound]),
    }
    optimal_returns = session.setup.environment.optimal_returns
    if optimal_returns is not None:
        shortfall = statistics.shortfall(final_returns, np.asarray(optimal_returns[:FINAL_EPISODES]))
        summary["final_shortfall"] = statistics.describe_shortfall(shortfall[sound])
        summary["per_agent_final_shortfall"] = shortfall
        summary["eval_optimum"] = np.mean(optimal_returns[: config.eval_episodes])
    summary["train_return_last_40"] = _last_training_returns([result.history for result in results])
    summary["per_agent_final_return"] = per_agent
    diverged: dict[int, int] = {}
    for result in results:
        diverged |= result.history.diverged
    summary["diverged_agents"] = sorted(diverged)
    summary["diverged_at_env_steps"] = [diverged[agent] for agent in sorted(diverged)]
    return summary


def _last_training_returns(histories: list[History]) -> dict[str, Any]:
    """The agents' means over their last 40 training episodes, described."""
    means = []
    for history in histories:
        for returns in history.training_returns():
            if len(returns):
                means.append(returns[-LAST_EPISODES:].mean(dtype=np.float64))
    return statistics.describe_returns(np.asarray(means))
