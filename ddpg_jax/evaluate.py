"""`python -m ddpg_jax.evaluate RUN_FOLDER`: a run's policies in other episodes, or in Gymnasium's environment."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from ddpg_jax.algorithm.evaluation import greedy_episodes
from ddpg_jax.algorithm.types import AgentState
from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.config import Config
from ddpg_jax.domains import count
from ddpg_jax.environments import pendulum
from ddpg_jax.environments.adapting import adapted
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_algorithm
from ddpg_jax.population.host import greedy_episodes as host_episodes
from ddpg_jax.processes.devices import own_settings
from ddpg_jax.processes.output import endure
from ddpg_jax.results import statistics
from ddpg_jax.runs.json_files import look_where_it_was
from ddpg_jax.runs.policy import Policy, load_policy, policy_config
from ddpg_jax.values import interval


@dataclass(frozen=True)
class Options:
    """Runs the greedy policies of a finished run: those trained on gymnax's Pendulum in Gymnasium's, from the same
    start states; others in the environment that they were trained in, from other start states than those of the run.
    """

    run_folder: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    gymnasium: str | None = None
    """Name of Gymnasium's environment to run them in instead (`pip install gymnasium`); its spaces must be those that
    the policies were trained on."""
    episodes: Annotated[int, count(1, pendulum.NUM_STARTS)] = pendulum.NUM_STARTS
    """Episodes per agent; on Pendulum-v1 they begin in the evaluation's start states."""
    seed: Annotated[int, count(0)] = 0
    """Seed of the start states on other environments."""


def gymnasium_returns(policy: Policy, env_id: str, episodes: int, seed: int) -> np.ndarray:
    """Runs the greedy policies of N agents from start states that all agents share.

    Args:
        policy: from `load_policy`.
        env_id: name of Gymnasium's environment.
        episodes: per agent.
        seed: of the start states, except on Pendulum, which has a table of them.

    Returns:
        Undiscounted returns [N, episodes].

    Raises:
        ValueError: if there is no such environment, or its spaces differ from the policies'.
    """
    import gymnasium

    try:
        grid = [[gymnasium.make(env_id) for _ in range(episodes)] for _ in range(policy.num_agents)]
    except gymnasium.error.Error as error:
        raise ValueError(f"gymnasium is {env_id!r}, but must be an environment of Gymnasium: {error}") from error
    _require_same_spaces(policy, grid[0][0])
    starts = _pendulum_starts(episodes) if env_id == pendulum.ENV_ID else [None] * episodes
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
    """Raises ValueError if the environment's spaces differ from those of the policies."""
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
            f"{space}, but must have the policies' {policy.observation_size} observations, and actions in {low} to "
            f"{high}"
        )


def _pendulum_starts(episodes: int) -> list[np.ndarray]:
    """Angles (rad) and velocities (rad/s) of the first of the evaluation's start states."""
    return list(np.stack(pendulum.start_states(episodes), axis=1).astype(np.float32).astype(np.float64))


def _begin(environment: Any, seed: int, state: np.ndarray | None) -> np.ndarray:
    """Begins an episode, in the given state if there is one, and returns its first observation [O] float32."""
    observation, _ = environment.reset(seed=seed)
    if state is None:
        return np.asarray(observation, np.float32)
    environment.unwrapped.state = state
    return np.array([np.cos(state[0]), np.sin(state[0]), state[1]], np.float32)


def returns_where_trained(policy: Policy, config: Config, episodes: int, seed: int) -> np.ndarray:
    """Runs the greedy policies of N agents in the environment of their training, from start states that a seed draws.

    Returns:
        Undiscounted returns [N, episodes].
    """
    environment = adapted(make(config.env_id, config.env_args), config.action_repeat)
    starts = environment.starts_of(seed, episodes)
    if environment.outside is not None:

        def act(observations: np.ndarray) -> np.ndarray:
            return np.asarray(policy.each(observations))

        host = environment.outside.episodes()
        return host_episodes(act, host, starts[0], policy.num_agents, environment).returns
    algorithm = make_algorithm(config, environment.low, environment.high)

    @jax.jit
    def returns(variables: Any) -> jax.Array:
        no_more: Any = (None,) * 6  # the agent only acts
        state = AgentState(variables, *no_more)
        return greedy_episodes(state, starts, environment=environment, algorithm=algorithm).returns

    return np.asarray(jax.lax.map(returns, policy.variables))


@own_settings()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.evaluate")
    look_where_it_was(options.run_folder)
    try:
        policy, config = load_policy(options.run_folder), policy_config(options.run_folder)
        name = options.gymnasium or (pendulum.ENV_ID if config.env_id == pendulum.ENV_ID else None)
        if name is None:
            where, returns = config.env_id, returns_where_trained(policy, config, options.episodes, options.seed)
        else:
            where = f"Gymnasium's {name}"
            returns = gymnasium_returns(policy, name, options.episodes, options.seed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError:
        print("error: Gymnasium is not installed: pip install gymnasium", file=sys.stderr)
        return 2
    print(report(options, returns, where, name))
    if config.average_tau < 1:
        print(f"each agent was evaluated with an average of its actor's weights (average_tau {config.average_tau:g})")
    return 0


def report(options: Options, returns: np.ndarray, where: str, gymnasium: str | None) -> str:
    """Returns the statistics over the returns [N, episodes], and those of the run's own summary, in lines."""
    final = statistics.describe_returns(returns.mean(axis=1))
    ci95 = interval(final.iqm_ci95, places=2)
    lines = [
        f"{len(returns)} agents x {returns.shape[1]} episodes in {where}",
        f"return: mean {final.mean:.2f}, IQM {final.iqm:.2f}{f', 95% {ci95}' if ci95 else ''}, "
        f"worst agent {final.worst:.2f}, best agent {final.best:.2f}",
    ]
    if gymnasium == pendulum.ENV_ID:
        lines.append(_shortfall_line(returns))
    summary = options.run_folder / "summary.json"
    if summary.is_file():
        content = json.loads(summary.read_text())
        mean, iqm = (content["final_return"][name] for name in ("mean", "iqm"))
        own = "all agents diverged" if mean is None else f"mean {mean:.2f}, IQM {iqm:.2f}"
        lines.append(f"the run's own summary, {content['final_episodes']} episodes in {content['env_id']}: {own}")
    return "\n".join(lines)


def _shortfall_line(returns: np.ndarray) -> str:
    """The shortfall of returns [N, episodes] on Pendulum, in words."""
    environment = make(pendulum.ENV_ID)
    assert environment.optimal_returns is not None
    optimum = np.asarray(environment.optimal_returns[: returns.shape[1]])
    shortfall = statistics.describe_shortfall(statistics.shortfall(returns, optimum), environment.solved_shortfall)
    return (
        f"shortfall to the optimum: mean {shortfall.mean:.2f}, IQM {shortfall.iqm:.2f}, worst {shortfall.worst:.2f}; "
        f"solved: {shortfall.num_solved} of {len(returns)} agents"
    )


if __name__ == "__main__":
    endure()
    sys.exit(main())
