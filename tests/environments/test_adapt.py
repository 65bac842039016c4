"""Tests what an environment may return, what is refused by name, repeated actions, and resets that run when needed."""

import dataclasses
import timeit
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import chain, counter, explored, setup_for, small_config, trained

from ddpg_jax.algorithm import evaluation, loop
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.types import Replay, TrainState
from ddpg_jax.environments.adapt import adapt
from ddpg_jax.environments.task import Task
from ddpg_jax.training.setup_factory import make_hyperparameters


def environment(*, observation=None, state=None, after=None, reward=0.0, ends=(False, False), size=2, **fields):
    """An environment that returns these things as they are."""
    observation = jnp.zeros(2) if observation is None else observation
    state = jnp.zeros(()) if state is None else state

    def reset(key):
        return state, observation

    def step(key, state, action):
        return state if after is None else after, Step(observation, reward, *ends)

    fields = {"low": (-1.0,), "high": (1.0,), "reset": reset, "step": step, **fields}
    return Environment("toy", size, max_steps=10, **fields)


# What is refused, by name, before anything is compiled


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 3}, r"observation_size of 'toy' is 3, but must be the 2 numbers"),
        ({"ends": (0.0, False)}, r"terminated of 'toy' is float32\[\], but must be bool\[\]"),
        ({"ends": (False, jnp.array([False, True]))}, r"truncated of 'toy' is bool\[2\], but must be bool\[\]"),
        ({"reward": jnp.zeros(2)}, r"reward of 'toy' is float32\[2\], but must be a number \[\]"),
        ({"reward": False}, r"reward of 'toy' is bool\[\], but must be a number \[\]"),
        ({"reward": None}, r"reward of 'toy' is None, but must be a number \[\]"),
        ({"after": jnp.int32(0)}, r"state of 'toy' is int32\[\] after a step, but must be float32\[\]"),
        ({"after": jnp.zeros(3)}, r"state of 'toy' is float32\[3\] after a step, but must be float32\[\]"),
        ({"state": {"a": jnp.zeros(())}, "after": {"a": jnp.int8(0)}}, r"state\['a'\] of 'toy' is int8\[\] after"),
        ({"state": {"a": jnp.zeros(())}, "after": {"b": jnp.zeros(())}}, r"state of 'toy' is .*'b'.* after a step"),
        ({"observation": jax.random.key(0), "size": 1}, r"observation of 'toy' is key.*, but must be numbers"),
        ({"reset": lambda key: jnp.zeros(2)}, r"reset of 'toy' returns .*, but must return \(state, observation\)"),
        ({"step": lambda key, state, action: (state, 0)}, r"step of 'toy' returns .*, but must return a Step"),
        ({"step": lambda key, state: 0}, r"step of 'toy' raises TypeError: .*, but must return \(state, Step\)"),
        ({"reset": lambda key: 1 / 0}, r"reset of 'toy' raises ZeroDivisionError: .*, but must return \(state, obs"),
        ({"high": (2e30,)}, r"bounds of the actions of 'toy' are .*, but must be at most 1e30"),
    ],
)
def test_faults_are_named(fields, message):
    with pytest.raises(ValueError, match=message) as refused:
        adapt(environment(**fields))
    assert "\n" not in str(refused.value)


# What is made to fit


def test_adapted_environments_are_compared_by_value_and_adapted_once():
    one, adapted = environment(), adapt(many_things(), 2)
    assert one != environment()  # functions of their own
    assert adapt(one) == adapt(dataclasses.replace(one))
    assert adapt(adapted) == adapted


def one_number(value):
    return jnp.full((1,), value)


@pytest.mark.parametrize(
    ("number", "flag"), [(float, bool), (np.float32, np.bool_), (one_number, one_number), (int, one_number)]
)
def test_loop_can_use_every_number_and_flag_that_the_check_accepts(number, flag):
    one = environment(reward=number(1.0), ends=(flag(False), flag(True)))
    rows, _, stats = explored(small_config(), one, 2)
    assert rows.reward.tolist() == [1.0, 1.0]
    assert stats.length.tolist() == [1, 1]


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
    task = adapt(many_things())
    assert task.observation_parts == (("a", (2, 2)), ("key", (2,)), ("z", ()))
    state, first = task.environment.reset(jax.random.key(0))
    assert first.dtype == jnp.float32
    assert first.tolist() == [0, 0, 0, 0, 0, 1, 0]
    _, step = task.environment.step(jax.random.key(0), state, jnp.zeros(2))
    assert step.observation.tolist() == [1, 1, 1, 1, 0, 1, 1]
    assert (step.reward.dtype, float(step.reward)) == (jnp.float32, 1.0)


def test_agents_act_within_asymmetric_bounds_with_keys_and_constants_in_the_state():
    rows, *_ = explored(small_config(noise_sigma=30.0), many_things(), 40)
    assert (rows.action >= [-1, -3]).all()
    assert (rows.action <= [1, 5]).all()
    assert {-3.0, 5.0} <= set(rows.action[:, 1].tolist())
    _, agent = trained(small_config(noise_sigma=1.0), many_things(), 30, num_agents=2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(agent.actor))


def test_start_states_of_a_task_are_made_to_fit():
    task = adapt(Task(counter(), starts=lambda num: (np.arange(num), {"steps": np.arange(num)})))
    starts = task.evaluation_starts(3)
    assert (starts.state.tolist(), starts.state.dtype) == ([0, 1, 2], jnp.int32)
    assert (starts.observation.tolist(), starts.observation.dtype) == ([[0.0], [1.0], [2.0]], jnp.float32)


@pytest.mark.parametrize(
    ("state", "observation", "message"),
    [
        (np.zeros(2, int), np.zeros((2, 1)), r"starts of 'counter' returns .*\(2,\).*, but must return 3 start states"),
        (np.zeros(3, int), np.zeros((2, 1)), r"starts of 'counter' returns .*, but must return 3 start states"),
        (np.zeros(3), np.zeros((3, 1)), r"state of 'counter' is float32\[\] in starts, but must be int32\[\]"),
        (np.zeros(3, int), np.zeros((3, 2)), r"observation_size of 'counter' is 1, but must be the 2 .* that starts"),
    ],
)
def test_start_states_that_do_not_fit_are_refused(state, observation, message):
    with pytest.raises(ValueError, match=message):
        adapt(Task(counter(), starts=lambda num: (state, observation))).evaluation_starts(3)


# Repeated actions


@pytest.mark.parametrize(
    ("rewards", "sums"),
    [((1.0, 2.0, 4.0, 8.0), [3.0, 12.0]), ((1.0, 2.0, 4.0), [3.0, 4.0])],  # the third reward, and none of what follows
)
def test_rewards_of_repeated_actions_are_added_up_to_the_end_of_the_episode(rewards, sums):
    rows, _, stats = explored(small_config(action_repeat=2), chain(rewards), 4)
    assert rows.reward.tolist() == sums * 2
    assert rows.discount.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert stats.length.tolist() == [0, 2, 0, 2]
    assert rows.next_observation[1].tolist() == [0.0] * len(rewards)  # the place behind the last


def test_time_limit_counts_the_agents_actions():
    assert adapt(counter(max_steps=12), 3).environment.max_steps == 4
    for times in (5, 0, 1.5):
        with pytest.raises(ValueError, match=rf"action_repeat is {times}, but must be a whole .*'counter', 12 steps"):
            adapt(counter(max_steps=12), times)


def test_optimum_is_not_that_of_repeated_actions():
    task = Task(counter(), optimal_returns=np.array([3.0, 3.0]), solved_shortfall=1.0)
    assert adapt(task).optimum(2).tolist() == [3.0, 3.0]
    assert adapt(task, 2).optimum(2) is None
    assert adapt(task, 2).solved_shortfall is None


# Ends of episodes


@pytest.mark.parametrize("num_agents", [1, 2])
def test_expensive_reset_runs_only_where_an_episode_has_ended(num_agents):
    """XLA moves what does not depend on a loop's carry out of the loop, where it would run always."""

    def reset(key):
        work = jax.lax.fori_loop(0, 300_000, lambda i, x: jnp.sin(x + i), jax.random.uniform(key, (1,)))
        return jnp.int32(0), work

    def seconds(function, *arguments):
        compiled = jax.jit(function).lower(*arguments).compile()
        return min(timeit.repeat(lambda: jax.block_until_ready(compiled(*arguments)), number=1, repeat=3))

    setup = setup_for(small_config(learning_starts=50), dataclasses.replace(counter(length=1000), reset=reset))
    hyperparameters = make_hyperparameters(small_config())
    init = jax.vmap(partial(loop.init, setup=setup), in_axes=(0, None))
    states = init(jax.random.split(jax.random.key(0), num_agents), hyperparameters)
    axes = TrainState(agent=0, replay=Replay(rows=0, added=None), env=0, key=0, step=None)
    states = states._replace(replay=states.replay._replace(added=jnp.int32(0)), step=jnp.int32(0))
    train = jax.vmap(partial(loop.train, setup=setup, max_steps=40), (axes, None, None), (axes, 0))
    assert seconds(train, states, hyperparameters, 40) < 10 * seconds(reset, jax.random.key(0))


def test_evaluations_end_when_no_episode_is_alive():
    steps = []

    def step(key, state, action):
        jax.debug.callback(lambda: steps.append(1))
        return state + 1, Step(jnp.ones(1), jnp.float32(1), state + 1 >= 3, jnp.bool_(False))

    task = adapt(dataclasses.replace(counter(max_steps=1000), step=step))
    setup = setup_for(small_config(), task.environment)
    state = loop.init(jax.random.key(0), make_hyperparameters(small_config()), setup=setup)
    run = partial(evaluation.greedy_episodes, environment=setup.environment, algorithm=setup.algorithm)
    episodes = jax.jit(run)(state.agent, task.evaluation_starts(2))
    jax.effects_barrier()
    assert episodes.returns.tolist() == [3.0, 3.0]
    assert len(steps) == 3  # of 1,000; side by side they are one call
