"""Tests what an environment may return, what is refused by name, repeated actions, and resets that run when needed."""

import dataclasses
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import chain, counter, explored, small_config, trained

from ddpg_jax.algorithm import evaluation, loop
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.types import Replay, TrainState
from ddpg_jax.environments.adapting import adapted, conformed, repeated
from ddpg_jax.population.assembly import make_hyperparameters, make_setup


def environment(
    *, observation=None, state=None, after=None, reward=0.0, terminated=False, truncated=False, size=2, **fields
):
    """An environment that returns these things as they are."""
    observation = jnp.zeros(2) if observation is None else observation
    state = jnp.zeros(()) if state is None else state

    def reset(key):
        return state, observation

    def step(key, state, action):
        new = state if after is None else after
        ends = (jnp.asarray(end) for end in (terminated, truncated))
        return new, Step(observation, jnp.asarray(reward), *ends)

    return Environment("toy", size, (-1.0,), (1.0,), 10, reset, step, **fields)


# What is refused, by name, before anything is compiled


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 3}, r"observation_size of 'toy' is 3, but must be the 2 numbers"),
        ({"terminated": 0.0}, r"terminated of 'toy' is float32\[\], but must be bool\[\]"),
        ({"truncated": [False]}, r"truncated of 'toy' is bool\[1\], but must be bool\[\]"),
        ({"reward": [0.0]}, r"reward of 'toy' is float32\[1\], but must be a number \[\]"),
        ({"reward": False}, r"reward of 'toy' is bool\[\], but must be a number \[\]"),
        ({"after": jnp.int32(0)}, r"state of 'toy' is int32\[\] after a step, but must be float32\[\]"),
        ({"after": jnp.zeros(3)}, r"state of 'toy' is float32\[3\] after a step, but must be float32\[\]"),
        ({"state": {"a": jnp.zeros(())}, "after": {"a": jnp.int8(0)}}, r"state\['a'\] of 'toy' is int8\[\] after"),
        ({"state": {"a": jnp.zeros(())}, "after": {"b": jnp.zeros(())}}, r"state of 'toy' is .*'b'.* after a step"),
        ({"observation": jax.random.key(0), "size": 1}, r"observation of 'toy' is key.*, but must be numbers"),
    ],
)
def test_faults_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make_setup(small_config(), environment(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": (-np.inf,)}, r"low is \(-inf,\), but must be finite"),
        ({"high": (np.nan,)}, r"high is \(nan,\), but must be finite"),
        ({"low": ()}, r"low is \(\), but must be finite numbers, one per action"),
        ({"low": (1.0,)}, r"high is \(1.0,\), but must be above low"),
        ({"high": (1.0, 1.0)}, r"high is \(1.0, 1.0\), but must be above low"),
        ({"max_steps": 0}, r"max_steps is 0, but must be a whole number >= 1"),
        ({"observation_size": 0}, r"observation_size is 0, but must be"),
    ],
)
def test_numbers_of_an_environment_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(environment(), **fields)


def test_what_is_not_a_pair_or_a_step_is_named():
    lonely = dataclasses.replace(environment(), reset=lambda key: jnp.zeros(2))
    with pytest.raises(ValueError, match=r"reset of 'toy' returns .*, but must return \(state, observation\)"):
        conformed(lonely)
    tupled = dataclasses.replace(environment(), step=lambda key, state, action: (state, (jnp.zeros(2), 0.0)))
    with pytest.raises(ValueError, match=r"step of 'toy' returns tuple, but must return a Step"):
        conformed(tupled)


# What is made to fit


def test_environment_that_fits_stays_the_same_object():
    fits = counter()
    assert conformed(fits) is fits


def test_environments_are_compared_by_value():
    one, other = (environment() for _ in range(2))
    assert one != other  # functions of their own
    assert one == dataclasses.replace(one)
    weak = dataclasses.replace(one, reset=lambda key: (0.0, [1, 2]), step=one.step)
    assert hash(dataclasses.replace(weak)) == hash(weak)


def many_things():
    """Observations in a dictionary, of several axes and dtypes; a state with a key, a constant and weak types."""

    def observe(state):
        return {"z": state["steps"], "a": jnp.full((2, 2), state["steps"], jnp.int8), "key": state["constant"]}

    def reset(key):
        state = {"key": key, "steps": 0.0, "flag": True, "constant": jnp.arange(2)}
        return state, observe(state)

    def step(key, state, action):
        state = {**state, "key": jax.random.split(state["key"])[0], "steps": state["steps"] + 1}
        state["flag"] = ~jnp.asarray(state["flag"])
        return state, Step(observe(state), 1, state["steps"] >= 4, jnp.bool_(False))

    return Environment("many", 7, (-1.0, -3.0), (1.0, 5.0), 100, reset, step)


def test_observations_are_flattened_in_the_order_of_their_names():
    fitted = conformed(many_things())
    assert fitted.observation_parts == (("a", (2, 2)), ("key", (2,)), ("z", ()))
    state, first = fitted.reset(jax.random.key(0))
    assert first.dtype == jnp.float32
    assert first.tolist() == [0, 0, 0, 0, 0, 1, 0]
    _, step = fitted.step(jax.random.key(0), state, jnp.zeros(2))
    assert step.observation.tolist() == [1, 1, 1, 1, 0, 1, 1]
    assert (step.reward.dtype, float(step.reward)) == (jnp.float32, 1.0)


def test_agents_train_with_keys_and_constants_in_the_state():
    _, agent = trained(small_config(noise_sigma=1.0), many_things(), 30, num_agents=2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.actor))


def test_actions_are_within_asymmetric_bounds():
    rows, *_ = explored(small_config(noise_sigma=30.0), many_things(), 40)
    assert (rows.action >= [-1, -3]).all()
    assert (rows.action <= [1, 5]).all()
    assert {-3.0, 5.0} <= set(rows.action[:, 1].tolist())


# Repeated actions


def test_rewards_of_repeated_actions_are_added_up():
    rows, _, outcome = explored(small_config(action_repeat=2), chain((1.0, 2.0, 4.0, 8.0)), 4)
    assert rows.reward.tolist() == [3.0, 12.0, 3.0, 12.0]
    assert rows.discount.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert outcome.episode_length.tolist() == [0, 2, 0, 2]


def test_an_episode_ends_inside_a_repeat():
    rows, *_ = explored(small_config(action_repeat=2), chain((1.0, 2.0, 4.0)), 4)
    assert rows.reward.tolist() == [3.0, 4.0, 3.0, 4.0]  # the third reward, and none of what would follow
    assert rows.discount.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert rows.next_observation[1].tolist() == [0.0, 0.0, 0.0]  # the place behind the last


def test_time_limit_counts_the_agents_actions():
    assert repeated(counter(max_steps=12), 3).max_steps == 4
    with pytest.raises(ValueError, match=r"action_repeat is 5, but must divide the time limit of 'counter', 12 steps"):
        adapted(counter(max_steps=12), 5)


# Ends of episodes


def test_reset_runs_where_an_episode_ended_and_nowhere_else():
    resets = []

    def reset(key):
        jax.debug.callback(lambda: resets.append(1))
        return jnp.int32(0), jnp.zeros(1)

    setup = make_setup(small_config(), dataclasses.replace(counter(length=5), reset=reset))
    hyperparameters = make_hyperparameters(small_config())
    state = loop.init(jax.random.key(0), hyperparameters, setup=setup)
    jax.effects_barrier()
    resets.clear()
    run = jax.jit(partial(loop.train, hyperparameters=hyperparameters, setup=setup, max_steps=23))
    jax.block_until_ready(run(state, num_steps=23))
    jax.effects_barrier()
    assert len(resets) == 4  # after the steps 5, 10, 15 and 20


@pytest.mark.parametrize("num_agents", [1, 2])
def test_expensive_reset_is_not_moved_out_of_its_loop(num_agents):
    """XLA moves what does not depend on a loop's carry out of the loop, so that it runs always."""

    def work(x):
        return jax.lax.fori_loop(0, 300_000, lambda i, x: jnp.sin(x + i), x)

    def reset(key):
        return jnp.int32(0), work(jax.random.uniform(key, (1,)))

    def seconds(function, *arguments):
        compiled = jax.jit(function).lower(*arguments).compile()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            times.append(time.perf_counter() - start)
        return min(times)

    config = small_config(learning_starts=50)
    setup = make_setup(config, dataclasses.replace(counter(length=1000), reset=reset))
    init = jax.vmap(partial(loop.init, setup=setup), in_axes=(0, None))
    hyperparameters = make_hyperparameters(config)
    states = init(jax.random.split(jax.random.key(0), num_agents), hyperparameters)
    axes = TrainState(0, Replay(rows=0, added=None), 0, 0, 0, 0, 0, step=None)
    states = states._replace(replay=states.replay._replace(added=jnp.int32(0)), step=jnp.int32(0))
    train = partial(loop.train, setup=setup, max_steps=40)
    forty_steps = seconds(jax.vmap(train, (axes, None, None), (axes, 0)), states, hyperparameters, 40)
    assert forty_steps < 10 * seconds(reset, jax.random.key(0))


def test_nan_in_a_terminal_observation_does_not_reach_the_agent():
    def step(key, state, action):
        return state, Step(jnp.array([jnp.nan, 1.0]), jnp.float32(1), jnp.bool_(True), jnp.bool_(False))

    dying = dataclasses.replace(environment(), step=step)
    rows, *_ = explored(small_config(), dying, 3)
    assert rows.next_observation.tolist() == [[0.0, 1.0]] * 3
    _, agent = trained(small_config(), dying, 20)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.actor))


def test_nan_before_the_end_is_not_hidden():
    broken = environment(observation=jnp.full(2, jnp.nan))
    rows, *_ = explored(small_config(), broken, 3)
    assert np.isnan(rows.next_observation).all()


def test_evaluations_end_when_no_episode_is_alive():
    steps = []

    def step(key, state, action):
        jax.debug.callback(lambda: steps.append(1))
        return state + 1, Step(jnp.ones(1), jnp.float32(1), state + 1 >= 3, jnp.bool_(False))

    short = dataclasses.replace(counter(max_steps=1000), step=step)
    setup = make_setup(small_config(), short)
    state = loop.init(jax.random.key(0), make_hyperparameters(small_config()), setup=setup)
    run = partial(evaluation.greedy_episodes, environment=setup.environment, algorithm=setup.algorithm)
    episodes = jax.jit(run)(state.agent, short.evaluation_starts(2))
    jax.effects_barrier()
    assert episodes.returns.tolist() == [3.0, 3.0]
    assert len(steps) == 3  # of 1,000; side by side they are one call
