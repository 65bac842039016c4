"""`python -m ddpg_jax.evaluate RUN_FOLDER`: a run's policies in Gymnasium's own environment instead of gymnax's."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ddpg_jax.command_line import parse
from ddpg_jax.environments.registry import make
from ddpg_jax.processes.output import endure
from ddpg_jax.results import statistics
from ddpg_jax.runs.policy import Policy, load_policy


@dataclass(frozen=True)
class Options:
    """Runs the greedy policies of a finished run in Gymnasium (`pip install gymnasium`)."""

    run_folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished run."""
    gymnasium: str = "Pendulum-v1"
    """Name of Gymnasium's environment; its spaces must be those that the policies were trained on."""
    episodes: int = 512
    """Episodes of each agent, from 1 to 512; on Pendulum-v1 from the evaluation's start states."""
    seed: int = 0
    """Seed of the start states of other environments; >= 0."""


def gymnasium_returns(policy: Policy, env_id: str, episodes: int, seed: int) -> np.ndarray:
    """Undiscounted returns [N, episodes] of the greedy policies of N agents, from start states that all share.

    Args:
        policy: of `load_policy`.
        env_id: of Gymnasium.
        episodes: of each agent.
        seed: of the start states, where they are not Pendulum's table.

    Raises:
        ValueError: if there is no such environment, or its spaces are not the policies'.
    """
    import gymnasium

    try:
        grid = [[gymnasium.make(env_id) for _ in range(episodes)] for _ in range(policy.num_agents)]
    except gymnasium.error.Error as error:
        raise ValueError(f"gymnasium is {env_id!r}, but must be an environment of Gymnasium: {error}") from error
    _require_same_spaces(policy, grid[0][0])
    starts = _pendulum_starts(episodes) if env_id == "Pendulum-v1" else [None] * episodes
    observations = np.array([[_begin(env, seed + i, starts[i]) for i, env in enumerate(row)] for row in grid])
    total = np.zeros((policy.num_agents, episodes))
    running = np.ones_like(total, bool)
    while running.any():
        actions = np.asarray(policy.each(observations))
        for agent, episode in np.argwhere(running):
            step = grid[agent][episode].step(actions[agent, episode])
            observations[agent, episode] = step[0]
            total[agent, episode] += float(step[1])
            running[agent, episode] = not (step[2] or step[3])
    return total


def _require_same_spaces(policy: Policy, environment: Any) -> None:
    space, low, high = environment.action_space, policy.actor.low, policy.actor.high
    same = (
        environment.observation_space.shape == (policy.observation_size,)
        and getattr(space, "shape", None) == (len(low),)
        and np.allclose(space.low, low)
        and np.allclose(space.high, high)
    )
    if not same:
        raise ValueError(
            f"gymnasium is {environment.spec.id}, with observations {environment.observation_space} and actions "
            f"{space}, but the policies take {policy.observation_size} observations and act in {low} to {high}"
        )


def _pendulum_starts(episodes: int) -> list[np.ndarray]:
    """Angles (rad) and velocities (rad/s) of the first of the evaluation's start states."""
    state, _ = make("Pendulum-v1").evaluation_starts(episodes)
    return list(np.stack([state.theta, state.theta_dot], axis=1).astype(np.float64))


def _begin(environment: Any, seed: int, state: np.ndarray | None) -> np.ndarray:
    """The first observation of an episode, from the given state if there is one."""
    observation, _ = environment.reset(seed=seed)
    if state is None:
        return np.asarray(observation, np.float32)
    environment.unwrapped.state = state
    return np.array([np.cos(state[0]), np.sin(state[0]), state[1]], np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.evaluate")
    try:
        if not 1 <= options.episodes <= 512:
            raise ValueError(f"episodes is {options.episodes}, but must be a whole number from 1 to 512")
        policy = load_policy(options.run_folder)
        returns = gymnasium_returns(policy, options.gymnasium, options.episodes, options.seed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError:
        print("error: Gymnasium is not installed: pip install gymnasium", file=sys.stderr)
        return 2
    print(report(options, returns))
    return 0


def report(options: Options, returns: np.ndarray) -> str:
    """What the returns [N, episodes] say, and what the run's own summary says of the same policies."""
    means = returns.mean(axis=1)
    low, high = statistics.iqm_interval(means)
    lines = [
        f"{len(returns)} agents x {returns.shape[1]} episodes in Gymnasium's {options.gymnasium}",
        f"return: mean {means.mean():.2f}, IQM {float(statistics.iqm(means)):.2f}, 95% [{low:.2f}, {high:.2f}], "
        f"worst agent {means.min():.2f}, best agent {means.max():.2f}",
    ]
    optimum = make("Pendulum-v1").optimal_returns if options.gymnasium == "Pendulum-v1" else None
    if optimum is not None:
        shortfall = statistics.describe_shortfall(
            statistics.shortfall(returns, np.asarray(optimum[: returns.shape[1]]))
        )
        lines.append(
            f"shortfall to the optimum: mean {shortfall['mean']:.2f}, IQM {shortfall['iqm']:.2f}, "
            f"worst {shortfall['worst']:.2f}; solved: {shortfall['num_solved']} of {len(returns)} agents"
        )
    summary = options.run_folder / "summary.json"
    if summary.is_file():
        final = json.loads(summary.read_text())["final_return"]
        lines.append(f"the run's own summary, 512 episodes in gymnax: mean {final['mean']:.2f}, IQM {final['iqm']:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    endure()
    sys.exit(main())
