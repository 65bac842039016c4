"""Compares gymnax's environments with Gymnasium's, and Pendulum's start states with the shipped table."""

from importlib import resources

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.environments.registry import make_task


@pytest.fixture(scope="module")
def task():
    return make_task("Pendulum-v1")


def test_pendulum_agrees_with_gymnasium_in_single_steps_from_anywhere(task):
    pendulum, draw = task.environment, np.random.default_rng(0)
    states = task.evaluation_starts(200).state.replace(
        theta=draw.uniform(-7, 7, 200).astype(np.float32), theta_dot=draw.uniform(-8, 8, 200).astype(np.float32)
    )
    actions = draw.uniform(-2, 2, size=(200, 1)).astype(np.float32)
    _, here = jax.jit(jax.vmap(pendulum.step, (None, 0, 0)))(jax.random.key(0), states, actions)
    env = gymnasium.make("Pendulum-v1")
    env.reset(seed=0)
    assert (pendulum.low, pendulum.high) == (tuple(env.action_space.low), tuple(env.action_space.high))
    assert pendulum.max_steps == env.spec.max_episode_steps == 200
    for i in range(200):
        env.unwrapped.state = np.array([states.theta[i], states.theta_dot[i]], np.float64)
        observation, reward, *_ = env.unwrapped.step(actions[i])
        np.testing.assert_allclose(here.observation[i], observation, atol=5e-6)
        np.testing.assert_allclose(here.reward[i], reward, atol=2e-5)


def test_mountain_car_differs_from_gymnasiums_at_the_left_wall_only():
    """Gymnasium stops the car there (its velocity becomes 0), gymnax does not, as docs/environments.md says."""
    environment = make_task("MountainCarContinuous-v0").environment
    theirs, draw = gymnasium.make("MountainCarContinuous-v0"), np.random.default_rng(0)
    theirs.reset(seed=0)
    template, _ = environment.reset(jax.random.key(0))
    position = np.append(draw.uniform(-1.2, 0.44, 300), [-1.2, -1.19, 0.44])
    velocity = np.append(draw.uniform(-0.07, 0.07, 300), [-0.05, -0.07, 0.05])
    action = draw.uniform(-1, 1, len(position)).astype(np.float32)
    at_wall = 0
    for x, v, a in zip(position, velocity, action, strict=True):
        state = template.replace(position=jnp.float32(x), velocity=jnp.float32(v))
        _, ours = environment.step(jax.random.key(0), state, jnp.array([a]))
        theirs.unwrapped.state = np.array([x, v])
        observation, reward, terminated, *_ = theirs.unwrapped.step(np.array([a]))
        if observation[0] <= np.float32(-1.2):
            at_wall += 1
            assert observation[1] == 0 > ours.observation[1]
            observation[1] = ours.observation[1]
        np.testing.assert_allclose(ours.observation, observation, atol=2e-6)
        np.testing.assert_allclose(ours.reward, reward, rtol=1e-5, atol=1e-6)
        assert bool(ours.terminated) == terminated
    assert at_wall >= 3


def test_pendulum_is_evaluated_from_the_table_that_is_shipped(task):
    with resources.files("ddpg_jax").joinpath("environments/data/pendulum_optimum.npz").open("rb") as file:
        table = dict(np.load(file))
    starts = task.evaluation_starts(512)
    np.testing.assert_array_equal(starts.state.theta, table["theta"].astype(np.float32))
    np.testing.assert_array_equal(starts.state.theta_dot, table["theta_dot"].astype(np.float32))
    assert not starts.state.time.any()
    expected = np.stack([np.cos(table["theta"]), np.sin(table["theta"]), table["theta_dot"]], axis=1)
    np.testing.assert_allclose(starts.observation, expected, atol=1e-6)
    np.testing.assert_array_equal(np.float32(task.optimum(512)), table["return_optimal"])
    host = make_task("gymnasium:Pendulum-v1").evaluation_starts(512)
    np.testing.assert_array_equal(host.state, np.stack([table["theta"], table["theta_dot"]], axis=1))
    np.testing.assert_allclose(host.observation, expected)
