"""Environments on the host: how they are checked, evaluated and filmed, and what is raised if one of them fails."""

import itertools
from collections.abc import Callable
from contextlib import closing

import numpy as np

from ddpg_jax.algorithm.environment import Environment, HostEnv, HostEnvs
from ddpg_jax.algorithm.evaluation import GreedyEpisodes, Starts


class HostEnvFailure(RuntimeError):  # noqa: N818
    """An environment on the host raised an error (the `__cause__`), or returned what cannot be used."""


def check(environment: Environment, host_env: HostEnv) -> None:
    """Makes one reset, two steps and, as training does, another reset, before anything is compiled.

    Raises ValueError, which names what the environment does not return as it must.
    """
    middle = np.asarray([np.add(environment.low, environment.high) / 2], np.float32)
    one, active = np.array([0]), np.array([True])
    try:
        with closing(host_env.make(1)) as envs:
            seen = [envs.begin(one, [0])]
            for _ in range(2):
                step = envs.step(middle, active)
                seen.append(np.asarray(step.observation))
                if step.terminated[0] or step.truncated[0]:
                    envs.begin(one, None)
            seen.append(envs.begin(one, None))
    except HostEnvFailure as failure:
        rule = (
            ", but reset(seed=...) must return (observation, info), and step(action) must return (observation, reward, "
            "terminated, truncated, info)"
        )
        raise ValueError(f"{failure}{rule if failure.__cause__ else ''}") from failure
    for size in {observation.size for observation in seen} - {environment.observation_size}:
        rule = f"but must have {environment.observation_size}"
        raise ValueError(f"observation of {environment.env_id!r} has {size} numbers, {rule}")


def host_greedy_episodes(
    act: Callable[[np.ndarray], np.ndarray],
    envs: HostEnvs,
    starts: Starts,
    num_agents: int,
    environment: Environment,
    on_progress: Callable[[float], None] = lambda episodes: None,
) -> GreedyEpisodes:
    """Runs one greedy episode per agent from each of S start states; the agents share the start states.

    An environment whose episode ends begins the agent's next one, so that the results do not depend on W. `act` is
    observations [N, W, O] -> actions [N, W, A] of N agents, and `envs` are N W environments, the W of one agent next to
    each other, which stay open. Returns arrays [N, S] float32. Raises HostEnvFailure if an environment fails.
    """
    first, num = list(starts.state), len(envs)
    width = num // num_agents
    agent, episode = np.repeat(np.arange(num_agents), width), np.tile(np.arange(width), num_agents)
    next_episode = np.full(num_agents, width)
    returns, at_bounds, length = (np.zeros((num_agents, len(first))) for _ in range(3))
    low, high = np.asarray(environment.low, np.float32), np.asarray(environment.high, np.float32)
    observations = np.zeros((num, environment.observation_size), np.float32)
    new = active = episode < len(first)
    while active.any():
        if new.any():
            observations[new] = envs.begin(np.flatnonzero(new), [first[i] for i in episode[new]])
        actions = act(observations.reshape(num_agents, width, -1)).reshape(num, -1)
        step = envs.step(np.nan_to_num(actions), active)
        observations = np.array(step.observation)
        now = agent[active], episode[active]
        returns[now] += step.reward[active]
        at_bounds[now] += np.mean((actions == low) | (actions == high), axis=-1)[active]
        length[now] += 1
        ended = np.zeros_like(active)
        ended[active] = (step.terminated | step.truncated)[active] | (length[now] >= environment.max_steps)
        for i in np.flatnonzero(ended):
            episode[i] = next_episode[agent[i]]
            next_episode[agent[i]] += 1
        on_progress(ended.sum() / num_agents)
        active = episode < len(first)
        new = ended & active
    return GreedyEpisodes(returns.astype(np.float32), (at_bounds / length).astype(np.float32))


def film(
    act: Callable[[np.ndarray], np.ndarray], film_env: HostEnv, starts: Starts, every: int = 1
) -> list[np.ndarray]:
    """Runs an episode from the first of the start states, and returns every n-th frame [H, W, 3] of it.

    `act` is observation [O] -> action [A], and `film_env` a `Task`'s. Raises HostEnvFailure if the environment fails.
    """
    one, active, frames = np.array([0]), np.array([True]), []
    with closing(film_env.make(1)) as envs:
        observation, ended = envs.begin(one, starts.state[:1])[0], False
        for number in itertools.count():
            if number % every == 0:
                frames.append(envs.render(0))
            if ended:
                break
            step = envs.step(np.asarray(act(observation))[None], active)
            observation, ended = np.asarray(step.observation)[0], bool(step.terminated[0] or step.truncated[0])
    return frames
