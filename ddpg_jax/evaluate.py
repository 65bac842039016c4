"""`python -m ddpg_jax.evaluate RUN_FOLDER`: a run's policies in new episodes of their task, or in Gymnasium's."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from ddpg_jax.algorithm.evaluation import Starts, greedy_episodes
from ddpg_jax.algorithm.types import AgentState
from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.environments import pendulum
from ddpg_jax.environments.host import HostEnvFailure, host_greedy_episodes
from ddpg_jax.environments.registry import make_task, task_of
from ddpg_jax.environments.task import Task
from ddpg_jax.fields import ARGUMENTS, count
from ddpg_jax.results import statistics
from ddpg_jax.results.summary import Summary
from ddpg_jax.results.text import interval
from ddpg_jax.sweep import label
from ddpg_jax.training.devices import pinned_jax_config
from ddpg_jax.training.output import ignore_broken_pipe
from ddpg_jax.training.policy import Policy, policy_folders, read_policy
from ddpg_jax.training.run_folder import read_config, swept_configs
from ddpg_jax.training.setup_factory import make_algorithm


@dataclass(frozen=True)
class Options:
    """Runs the greedy policies of a finished run in the task that they were trained on, from new start states. Policies
    trained on gymnax's Pendulum-v1 run in Gymnasium's, from the start states of the run's own final evaluation.
    """

    run_folder: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    gymnasium: str | None = None
    """Run them in this environment of Gymnasium; its spaces must be those that they were trained on. (default: not)"""
    env_args: Annotated[tuple[str, ...], ARGUMENTS] = ()
    """Arguments of that environment, each of the form NAME=VALUE."""
    episodes: Annotated[int | None, count(1, pendulum.NUM_STARTS)] = None
    """Episodes per agent. (default: 512; 32 where environments step on the host)"""
    seed: Annotated[int, count(0)] = 0
    """Seed of the start states, except on Pendulum-v1 in Gymnasium, which has a table of them."""


@pinned_jax_config()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.evaluate")
    try:
        print("\n".join(evaluate(options)))
    except (ValueError, HostEnvFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(options: Options) -> list[str]:
    """Returns the results in lines; raises ValueError if the policies cannot be evaluated."""
    folder = options.run_folder
    details = read_config(folder) if (folder / "config.json").is_file() else None  # a user's own task is found by it
    policies = [read_policy(path) for path in policy_folders(folder)]
    task = evaluation_task(policies[0], options.gymnasium, options.env_args)
    num = options.episodes or (512 if task.environment.host_env is None else 32)
    has_table = task.optimal_returns is not None and task.environment.env_id != policies[0].env_id
    starts = task.evaluation_starts(num) if has_table else task.starts_of(options.seed, num)
    known = [([i for i in range(len(policy)) if i not in policy.diverged_agents], policy) for policy in policies]
    returns = [greedy_returns(policy[indices], task, starts) for indices, policy in known if indices]
    if not returns:
        raise ValueError(f"run_folder is {folder}, but must have agents that have not diverged")
    agents = np.concatenate([np.array(policy.agents)[indices] for indices, policy in known])
    optimum, lines = task.optimum(num) if has_table else None, []
    for name, rows in configurations(details, agents):
        lines += [name] * (name != "") + describe(np.concatenate(returns)[rows], task, optimum)
    if lost := sorted(policy.agents[index] for policy in policies for index in policy.diverged_agents):
        lines.append(f"left out: agents {', '.join(map(str, lost))}, which diverged in training")
    if (folder / "summary.json").is_file():
        summary = Summary.from_dict(json.loads((folder / "summary.json").read_bytes()))
        run, final = f"{summary.final_episodes} episodes in {summary.env_id}", summary.final_return
        if summary.complete and not summary.configs:
            lines.append(f"the run's own summary, {run}: mean {final.mean:.2f}, IQM {final.iqm:.2f}")
    return lines


def configurations(details: Mapping[str, Any] | None, agents: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the configurations of a sweep that have agents left: a name, and the positions of its agents.

    Without a sweep there is one, without a name.
    """
    swept = swept_configs(details) if details else ()
    if details is None or len(swept) < 2:
        yield "", np.arange(len(agents))
        return
    first, stop = details["seeds"]
    for config, each in enumerate(swept):
        rows = np.flatnonzero((agents - first) // (stop - first) == config)
        if len(rows):
            yield f"configuration {config}, {label(each.values)}:", rows


def evaluation_task(policy: Policy, gymnasium: str | None, env_args: tuple[str, ...]) -> Task:
    """Returns the task in which a policy is evaluated; raises ValueError if there is none, or its spaces differ."""
    if policy.config is None:
        raise ValueError("config is null in policy.json, but must say on which task the policy was trained")
    trained_on = task_of(policy.config)
    if env_args and gymnasium is None:
        raise ValueError(f"env_args is {' '.join(env_args)}, but must only be given with --gymnasium")
    if gymnasium is None and policy.config.env_id == pendulum.ENV_ID and trained_on.optimal_returns is not None:
        gymnasium = pendulum.ENV_ID
    if gymnasium is None:
        return trained_on
    task = make_task(f"gymnasium:{gymnasium}", env_args, policy.config.action_repeat)
    text = "{} observations and actions from {} to {}"
    here, there = ((env.observation_size, env.low, env.high) for env in (trained_on.environment, task.environment))
    if here[0] != there[0] or len(here[1]) != len(there[1]) or not np.allclose(here[1:], there[1:]):
        spaces = f"{text.format(*there)}, but must have the policies' {text.format(*here)}"
        raise ValueError(f"gymnasium is {gymnasium!r}, with {spaces}")
    return task


def greedy_returns(policy: Policy, task: Task, starts: Starts) -> np.ndarray:
    """Returns the undiscounted returns [N, S] of greedy episodes from S start states that the N agents share."""
    environment, config = task.environment, policy.config
    assert config is not None
    if environment.host_env is not None:
        num_envs = len(policy) * min(config.num_envs, len(starts.observation))
        with closing(environment.host_env.make(num_envs)) as envs:
            act = lambda observations: np.asarray(policy.each(observations))  # noqa: E731
            return host_greedy_episodes(act, envs, starts, len(policy), environment).returns
    algorithm = make_algorithm(config, environment.low, environment.high)

    @jax.jit
    def returns_of(variables: Any) -> jax.Array:
        unused: Any = (None,) * 6  # the agent only acts
        state = AgentState(variables, *unused)
        return greedy_episodes(state, starts, environment=environment, algorithm=algorithm).returns

    return np.asarray(jax.lax.map(returns_of, policy.variables))


def describe(returns: np.ndarray, task: Task, optimum: np.ndarray | None) -> list[str]:
    """Returns statistics over the returns [N, S] in lines, and over the shortfall to an optimum [S] if it is given."""
    final = statistics.describe_returns(returns.mean(axis=1))
    ci95 = f"95% {interval(final.iqm_ci95, 2)}" if np.isfinite(final.iqm_ci95[0]) else f"({statistics.NO_INTERVAL})"
    lines = [
        f"{len(returns)} agents x {returns.shape[1]} episodes in {task.environment.env_id}",
        f"return: mean {final.mean:.2f}, IQM {final.iqm:.2f} {ci95}, worst agent {final.worst:.2f}, "
        f"best agent {final.best:.2f}",
    ]
    if optimum is not None:
        short = statistics.describe_shortfall(statistics.shortfall(returns, optimum), task.solved_shortfall)
        solved = f"solved: {short.num_solved} of {len(returns)} agents"
        numbers = f"mean {short.mean:.2f}, IQM {short.iqm:.2f}, worst {short.largest:.2f}"
        lines.append(f"shortfall to the optimum: {numbers}; {solved}")
    return lines


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
