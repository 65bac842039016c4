"""Compares environments with Gymnasium and with values by hand: how episodes end, and what the replay stores then."""

from functools import partial
from importlib import resources

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import counter, explored, small_config

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.evaluation import greedy_episodes
from ddpg_jax.environments.adapt import adapt
from ddpg_jax.environments.registry import make_task
from ddpg_jax.training.setup_factory import make_algorithm


@pytest.fixture(scope="module")
def task():
    return make_task("Pendulum-v1")


@pytest.fixture(scope="module")
def pendulum(task):
    return task.environment


# Pendulum against Gymnasium


def gymnasium_pendulum(theta: float, theta_dot: float):
    """Gymnasium's Pendulum-v1 in a given state."""
    env = gymnasium.make("Pendulum-v1")
    env.reset(seed=0)
    env.unwrapped.state = np.array([theta, theta_dot], np.float64)
    return env


def test_pendulum_agrees_with_gymnasium_along_whole_episodes(task, pendulum):
    states = task.evaluation_starts(3).state
    actions = np.random.default_rng(0).uniform(-2, 2, size=(200, 3, 1)).astype(np.float32)

    @jax.jit
    def run(states, actions):
        step = jax.vmap(pendulum.step, (None, 0, 0))
        return jax.lax.scan(lambda states, action: step(jax.random.key(0), states, action), states, actions)[1]

    here = run(states, actions)
    for i in range(3):
        env = gymnasium_pendulum(float(states.theta[i]), float(states.theta_dot[i]))
        theirs = [env.step(action) for action in actions[:, i]]
        # The pendulum amplifies rounding: 6e-3 was measured. Single steps are held to 5e-6 below.
        np.testing.assert_allclose(here.observation[:, i], [t[0] for t in theirs], atol=0.05)
        np.testing.assert_allclose(here.reward[:, i], [t[1] for t in theirs], atol=0.05)
        assert here.terminated[:, i].tolist() == [t[2] for t in theirs] == [False] * 200
        assert here.truncated[:, i].tolist() == [t[3] for t in theirs] == [False] * 199 + [True]


def test_pendulum_agrees_with_gymnasium_in_single_steps_from_anywhere(task, pendulum):
    rng = np.random.default_rng(0)
    states = task.evaluation_starts(200).state.replace(
        theta=rng.uniform(-7, 7, 200).astype(np.float32), theta_dot=rng.uniform(-8, 8, 200).astype(np.float32)
    )
    actions = rng.uniform(-2, 2, size=(200, 1)).astype(np.float32)
    _, here = jax.jit(jax.vmap(pendulum.step, (None, 0, 0)))(jax.random.key(0), states, actions)
    env = gymnasium_pendulum(0.0, 0.0)
    for i in range(200):
        env.unwrapped.state = np.array([states.theta[i], states.theta_dot[i]], np.float64)
        observation, reward, *_ = env.unwrapped.step(actions[i])
        np.testing.assert_allclose(here.observation[i], observation, atol=5e-6)
        np.testing.assert_allclose(here.reward[i], reward, atol=2e-5)


def test_pendulum_has_the_spaces_of_gymnasium(pendulum):
    theirs = gymnasium.make("Pendulum-v1")
    assert (pendulum.low, pendulum.high) == (tuple(theirs.action_space.low), tuple(theirs.action_space.high))
    assert (pendulum.observation_size, pendulum.action_size) == (*theirs.observation_space.shape, 1)
    assert pendulum.max_steps == theirs.spec.max_episode_steps == 200


def test_pendulum_starts_as_widely_as_gymnasium(pendulum):
    _, observations = jax.vmap(pendulum.reset)(jax.random.split(jax.random.key(0), 4000))
    angle = np.arctan2(observations[:, 1], observations[:, 0])
    for values, bound in [(angle, np.pi), (np.asarray(observations[:, 2]), 1.0)]:  # U(-pi, pi) and U(-1, 1)
        assert np.abs(values).max() <= bound
        assert abs(values.mean()) < 5 * bound / np.sqrt(3 * 4000)
        assert abs(np.mean(values**2) - bound**2 / 3) < 5 * bound**2 / 3 * np.sqrt(0.8 / 4000)


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
    np.testing.assert_array_equal(host.state["state"], np.stack([table["theta"], table["theta_dot"]], axis=1))
    np.testing.assert_allclose(host.observation, expected)


def idle(algorithm, observation_size):
    """An agent whose weights are 0, and so its actions."""
    shapes = jax.eval_shape(partial(agent.init, algorithm=algorithm), jax.random.key(0), jnp.zeros(observation_size))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def test_greedy_return_of_an_idle_policy_is_gymnasiums(task, pendulum):
    algorithm = make_algorithm(small_config(), pendulum.low, pendulum.high)
    starts = task.evaluation_starts(4)
    run = jax.jit(partial(greedy_episodes, environment=pendulum, algorithm=algorithm))
    returns = run(idle(algorithm, 3), starts).returns
    for i in range(4):
        env = gymnasium_pendulum(float(starts.state.theta[i]), float(starts.state.theta_dot[i]))
        theirs = sum(env.step(np.zeros(1, np.float32))[1] for _ in range(200))
        np.testing.assert_allclose(returns[i], theirs, rtol=1e-3)


# How episodes end


@pytest.fixture(scope="module")
def two_episodes(pendulum):
    """401 steps of Pendulum: two episodes, and the first step of a third."""
    return explored(small_config(noise_sigma=1.0), pendulum, 401)


def test_next_observation_at_an_episodes_end_is_the_one_before_the_reset(two_episodes):
    rows, _, _ = two_episodes
    for i in range(400):
        follows = np.array_equal(rows.next_observation[i], rows.observation[i + 1])
        assert follows == (i not in (199, 399)), i
    for end in (199, 399):  # what Gymnasium observes after the action, whatever came next here
        cos, sin, velocity = rows.observation[end].astype(np.float64)
        theirs = gymnasium_pendulum(np.arctan2(sin, cos), velocity).step(rows.action[end])[0]
        np.testing.assert_allclose(rows.next_observation[end], theirs, atol=1e-4)


def test_time_limit_is_bootstrapped(two_episodes):
    rows, _, _ = two_episodes
    assert (rows.discount == 1).all()


def test_episodes_report_their_length_and_return(two_episodes):
    rows, state, stats = two_episodes
    assert np.flatnonzero(stats.length).tolist() == [199, 399]
    assert stats.length[[199, 399]].tolist() == [200, 200]
    sums = [rows.reward[:200].sum(dtype=np.float64), rows.reward[200:400].sum(dtype=np.float64)]
    np.testing.assert_allclose(stats.total_reward[[199, 399]], sums, rtol=1e-5)
    assert (int(state.env.episode.number), int(state.env.episode.length), int(state.step)) == (2, 1, 401)
    np.testing.assert_allclose(state.env.episode.total_reward, rows.reward[400], rtol=1e-6)


def test_executed_actions_are_within_the_bounds(two_episodes):
    actions = two_episodes[0].action
    assert np.abs(actions).max() == 2
    assert (np.abs(actions) == 2).mean() > 0.05  # the noise did exceed the bounds


TRUNCATED, TERMINATED = counter(length=3), counter(length=3, terminates=True)


@pytest.mark.parametrize(
    ("environment", "changes", "length", "discount"),
    [
        (TRUNCATED, {}, 3, 1),
        (TRUNCATED, {"time_limit_terminal": True}, 3, 0),
        (TERMINATED, {}, 3, 0),
        (TRUNCATED, {"max_episode_steps": 2}, 2, 1),
        (TRUNCATED, {"max_episode_steps": 2, "time_limit_terminal": True}, 2, 0),
        (TRUNCATED, {"max_episode_steps": 9}, 3, 1),
        (counter(length=9, max_steps=2), {}, 2, 1),
        (counter(length=3, terminates=True, max_steps=3), {}, 3, 0),  # both at once: terminal
    ],
)
def test_end_of_an_episode_is_stored_as_what_it_was(environment, changes, length, discount):
    rows, state, stats = explored(small_config(**changes), environment, 7)
    steps = np.arange(7) % length
    assert rows.observation[:, 0].tolist() == steps.tolist()
    assert rows.next_observation[:, 0].tolist() == (steps + 1).tolist()  # never 0, which a reset would show
    ends = steps == length - 1
    assert rows.discount.tolist() == np.where(ends, discount, 1).tolist()
    assert stats.length.tolist() == np.where(ends, length, 0).tolist()
    assert stats.total_reward.tolist() == (steps + 1).tolist()
    assert int(state.env.episode.number) == ends.sum()


class BangBang(nn.Module):
    """Pushes the mountain car in the direction in which it moves."""

    low: tuple[float, ...] = (-1.0,)

    @nn.compact
    def __call__(self, observation, train=False):
        push = self.param("push", nn.initializers.ones, (1,))
        return jnp.where(observation[..., 1:] >= 0, push, -push)


def test_mountain_car_reaches_its_goal_and_terminates():
    environment = make_task("MountainCarContinuous-v0").environment
    config = small_config(noise_scale=0.0)
    algorithm = agent.Algorithm(BangBang(), make_algorithm(config, (-1.0,), (1.0,)).critic)
    rows, _, stats = explored(config, environment, 400, algorithm=algorithm)
    ends = np.flatnonzero(stats.length)
    assert len(ends) >= 2
    assert ends[0] < 200  # the time limit is 999
    assert np.flatnonzero(rows.discount == 0).tolist() == ends.tolist()
    assert set(rows.discount.tolist()) == {0, 1}
    np.testing.assert_allclose(rows.reward, np.where(rows.discount == 0, 99.9, -0.1), rtol=1e-5)  # 100 - 0.1 a^2
    assert (rows.next_observation[ends, 0] >= 0.45).all()  # the goal's position
    assert ((rows.observation[ends[:-1] + 1, 0] >= -0.6) & (rows.observation[ends[:-1] + 1, 0] <= -0.4)).all()


def test_mountain_car_differs_from_gymnasiums_at_the_left_wall_alone():
    """Gymnasium stops the car there (its velocity becomes 0), gymnax does not, as docs/environments.md says.

    gymnax instead stops a car that moves left at or behind the goal, which no episode contains: it has ended there.
    """
    environment = make_task("MountainCarContinuous-v0").environment
    theirs = gymnasium.make("MountainCarContinuous-v0")
    template, _ = environment.reset(jax.random.key(0))
    draw = np.random.default_rng(0)
    position = np.append(draw.uniform(-1.2, 0.44, 300), [-1.2, -1.19, 0.44])
    velocity = np.append(draw.uniform(-0.07, 0.07, 300), [-0.05, -0.07, 0.05])
    action = draw.uniform(-1, 1, len(position)).astype(np.float32)
    at_wall = 0
    for x, v, a in zip(position, velocity, action, strict=True):
        state = template.replace(position=jnp.float32(x), velocity=jnp.float32(v))
        _, ours = environment.step(jax.random.key(0), state, jnp.array([a]))
        theirs.reset(seed=0)
        theirs.unwrapped.state = np.array([x, v])
        observation, reward, terminated, _, _ = theirs.step(np.array([a]))
        wall = bool(observation[0] <= np.float32(-1.2))
        at_wall += wall
        expected = np.array([observation[0], ours.observation[1] if wall else observation[1]])
        np.testing.assert_allclose(ours.observation, expected, atol=2e-6)
        assert not wall or (observation[1] == 0 and ours.observation[1] < 0)
        np.testing.assert_allclose(ours.reward, reward, rtol=1e-5, atol=1e-6)
        assert bool(ours.terminated) == terminated
    assert at_wall >= 3


def test_environment_with_two_actions_is_explored():
    reacher = make_task("Reacher-misc").environment
    assert (reacher.observation_size, reacher.action_size) == (8, 2)
    assert (reacher.low, reacher.high) == ((-1.0, -1.0), (1.0, 1.0))
    rows, _, stats = explored(small_config(noise_sigma=0.5, noise_theta=0.5), reacher, 101)
    assert rows.action.shape == (101, 2)
    assert abs(np.corrcoef(rows.action.T)[0, 1]) < 0.5
    # the angular velocities, entries 4 and 5 of the observation, grow by .05 times the action (Reacher's dt)
    change = rows.next_observation[:, 4:6] - rows.observation[:, 4:6]
    np.testing.assert_allclose(change, 0.05 * rows.action, atol=1e-5)
    assert np.flatnonzero(stats.length).tolist() == [reacher.max_steps - 1]
    assert (rows.discount == 1).all()


# Greedy episodes


def test_greedy_return_ends_with_the_episode():
    algorithm = make_algorithm(small_config(), (-10.0,), (10.0,))
    state = agent.init(jax.random.key(0), jnp.zeros(1), algorithm=algorithm)
    cases = [(counter(length=3, terminates=True), 3), (counter(length=4), 4), (counter(length=9, max_steps=5), 5)]
    for environment, expected in cases:
        starts = adapt(environment).evaluation_starts(2)
        returns = greedy_episodes(state, starts, environment=environment, algorithm=algorithm).returns
        assert returns.tolist() == [expected, expected]


class Echo(nn.Module):
    """Acts with the observation."""

    low: tuple[float, ...] = (-10.0,)

    @nn.compact
    def __call__(self, observation, train=False):
        return observation + self.param("bias", nn.initializers.zeros, (1,))


def test_share_of_actions_at_bounds_counts_the_steps_of_the_episode():
    # The observations, and so the actions, are 0, 1, 2, 3; from 2 on they are the upper bound.
    algorithm = agent.Algorithm(Echo(), make_algorithm(small_config(), (-10.0,), (10.0,)).critic)
    state = agent.init(jax.random.key(0), jnp.zeros(1), algorithm=algorithm)
    for environment, expected in [(counter(length=4, bound=2.0), 0.5), (counter(length=2, bound=2.0), 0.0)]:
        starts = adapt(environment).evaluation_starts(2)
        episodes = greedy_episodes(state, starts, environment=environment, algorithm=algorithm)
        assert episodes.share_at_bounds.tolist() == [expected, expected]
