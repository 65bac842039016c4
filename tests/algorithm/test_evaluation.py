"""Tests greedy episodes: their returns by hand, and the random numbers of environments that draw some."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import aim, chain, small_config

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.evaluation import GreedyEpisodes, Starts, greedy_episodes
from ddpg_jax.training.setup_factory import make_algorithm

LENGTH = 3


def noisy(step_noise: float = 1.0) -> Environment:
    """Three steps, whose rewards are standard normal numbers drawn from the step's key, plus the action."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(key, state, action):
        reward = step_noise * jax.random.normal(key) + action[0]
        return state + 1, Step(jnp.zeros(1), reward, jnp.bool_(False), state + 1 >= LENGTH)

    return Environment("noisy", 1, (-1.0,), (1.0,), 100, reset, step)


def starts_in(environment: Environment, seed: int, num: int) -> Starts:
    keys = jax.random.split(jax.random.key(seed), num)
    return Starts(*jax.vmap(environment.reset)(keys), keys)


def agents_in(environment: Environment, num: int = 1):
    algorithm = make_algorithm(small_config(actor_final_init=1.0), environment.low, environment.high)
    example = jnp.zeros(environment.observation_size)
    init = partial(agent.init, algorithm=algorithm)
    return algorithm, jax.vmap(init, (0, None))(jax.random.split(jax.random.key(0), num), example)


def evaluated(environment: Environment, starts: Starts, num_agents: int = 1) -> GreedyEpisodes:
    algorithm, agents = agents_in(environment, num_agents)
    run = partial(greedy_episodes, environment=environment, algorithm=algorithm)
    return jax.device_get(jax.jit(jax.vmap(run, (0, None)))(agents, starts))


def test_returns_are_undiscounted_sums_up_to_the_end_of_each_episode():
    """Start states at different places of a chain reach its end after different numbers of steps."""
    environment = chain((1.0, 10.0, 100.0))
    states = jnp.arange(3)
    starts = Starts(states, jax.nn.one_hot(states, 3), jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(evaluated(environment, starts).returns, [[111.0, 110.0, 100.0]])
    limited = replace(environment, max_steps=2)
    np.testing.assert_array_equal(evaluated(limited, starts).returns, [[11.0, 110.0, 100.0]])


@pytest.mark.parametrize(("bias", "share"), [((9.0, -9.0), 1.0), ((9.0, 0.0), 0.5), ((0.0, 0.0), 0.0)])
def test_share_at_bounds_counts_steps_and_components(bias, share):
    environment = aim((0.0, 0.0), (-1.0, -1.0), (1.0, 1.0))
    algorithm, agents = agents_in(environment)
    state = jax.tree.map(lambda x: jnp.zeros_like(x[0]), agents)
    state.actor["params"]["final"]["Dense_0"]["bias"] = jnp.array(bias)
    found = greedy_episodes(state, starts_in(environment, 0, 2), environment=environment, algorithm=algorithm)
    np.testing.assert_array_equal(found.share_at_bounds, [share, share])


def test_step_t_of_an_episode_uses_the_episodes_key_with_t_folded_in():
    environment = noisy()
    starts = starts_in(environment, 5, 4)
    found = evaluated(environment, starts, num_agents=2)
    expected = [sum(float(jax.random.normal(jax.random.fold_in(key, t))) for t in range(LENGTH)) for key in starts.key]
    greedy = evaluated(noisy(0.0), starts, num_agents=2).returns  # without noise
    np.testing.assert_allclose(found.returns - greedy, [expected, expected], atol=1e-5)  # agents share the noise
    assert len(np.unique(np.round(expected, 4))) == 4  # episodes do not
