"""Tests the optimum with brute force over torques, with Gymnasium's own dynamics, and with the shipped table."""

import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optimum as benchmark
import pytest

from ddpg_jax.environments import optimum
from ddpg_jax.environments.registry import make_task

STATES = np.array([[0.1, 0.0], [-0.3, 0.9], [2.0, -1.0], [3.1, 0.5], [-3.1, -7.9], [1.0, 8.0]])


@pytest.fixture(scope="module")
def shipped():
    """Returns the start states [512, 2] and the optimum's returns [512]."""
    task = make_task("Pendulum-v1")
    state = task.evaluation_starts(512).state
    return np.stack([state.theta, state.theta_dot], axis=1), task.optimum(512)


def returns_of(values, states, discount=1.0):
    """Returns the undiscounted and the discounted returns [S] of episodes from states [S, 2]."""
    rewards = np.asarray(optimum.follow(values, *jnp.asarray(states.T, jnp.float32), discount)[2], np.float64)
    return rewards.sum(axis=0), discount ** np.arange(len(rewards)) @ rewards


def test_dynamics_are_those_of_gymnasium():
    environment = gymnasium.make("Pendulum-v1").unwrapped
    environment.reset(seed=0)
    for (angle, velocity), torque in itertools.product(STATES, (-2.0, -0.3, 2.0)):
        environment.state = np.array([angle, velocity])
        _, reward, *_ = environment.step(np.array([torque]))
        expected = (*environment.state, reward)
        np.testing.assert_allclose(optimum.step(angle, velocity, torque), expected, rtol=1e-5, atol=1e-5)


def brute_force(angle, velocity, num_steps, discount):
    """Computes the highest return over all sequences of 101 torques, in float64 and with its own formulas."""
    if num_steps == 0:
        return np.zeros(np.broadcast_shapes(np.shape(angle), np.shape(velocity)))
    torque = np.linspace(-2, 2, 101)
    angle, velocity = np.asarray(angle)[..., None], np.asarray(velocity)[..., None]
    wrapped = np.arctan2(np.sin(angle), np.cos(angle))
    after = np.clip(velocity + 0.05 * (15 * np.sin(angle) + 3 * torque), -8, 8)
    future = brute_force(angle + 0.05 * after, after, num_steps - 1, discount)
    return np.max(discount * future - wrapped**2 - 0.1 * velocity**2 - 0.001 * torque**2, axis=-1)


@pytest.mark.parametrize(("num_steps", "discount"), [(3, 1.0), (3, 0.9)])
def test_short_episodes_are_those_that_brute_force_finds(num_steps, discount):
    first, after = optimum.finite_horizon((400, 401), discount, num_steps)
    assert after.shape == (num_steps, 400, 401)
    np.testing.assert_array_equal(after[-1], np.zeros((400, 401)))
    expected = brute_force(*STATES.T, num_steps, discount)
    np.testing.assert_allclose(returns_of(after, STATES, discount)[1], expected, rtol=2e-5, atol=1e-4)
    np.testing.assert_allclose(optimum.interpolate(first, *jnp.asarray(STATES.T)), expected, rtol=1e-3, atol=2e-3)


def test_interpolation_is_exact_at_points_and_goes_round():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(7, 5)), jnp.float32)
    angles, velocities = optimum.axes(values.shape)
    grid = jnp.meshgrid(angles, velocities, indexing="ij")
    for turns in (-1, 0, 2):
        found = jax.jit(optimum.interpolate)(values, grid[0] + 2 * np.pi * turns, grid[1])
        np.testing.assert_allclose(found, values, atol=1e-4)
    half_way = optimum.interpolate(values, angles[-1:] + np.pi / 7, jnp.array([-2.0]))
    # after the last angle comes the first; -2 rad/s lies between the second and the third of five velocities
    np.testing.assert_allclose(half_way, [np.mean(values[np.ix_([-1, 0], [1, 2])])], atol=1e-5)


def test_coarse_table_comes_close_to_the_shipped_optimum_and_never_exceeds_it(shipped):
    starts, optimal = shipped
    coarse, _ = returns_of(optimum.finite_horizon((200, 201))[1], starts)
    assert np.max(coarse - optimal) < 0.01
    assert -1.5 < np.mean(coarse - optimal) < 0


def test_infinite_horizon_satisfies_its_equation_and_its_policy_costs_little(shipped):
    starts, optimal = shipped
    values = optimum.infinite_horizon((100, 101), 0.99)
    # Where values are steep, by 50 from one point to the next, rounding of the place between them costs some 1e-3.
    assert np.max(np.abs(jax.jit(optimum.bellman)(values, 0.99) - values)) < 2e-3
    plain, _ = returns_of(values, starts, 0.99)
    assert np.max(plain - optimal) < 0.01
    assert np.mean(plain - optimal) > -6


def test_benchmark_extends_to_other_states(tmp_path, shipped, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "CELLS", 2)
    starts, optimal = shipped
    np.save(tmp_path / "starts.npy", starts[:8])
    words = ["--finest", "100", "--starts", str(tmp_path / "starts.npy"), "--returns", str(tmp_path / "returns.npy")]
    assert benchmark.main(words) == 0
    assert "not refined further" in capsys.readouterr().out
    returns = np.load(tmp_path / "returns.npy")
    assert returns.shape == (8,)
    assert np.all(returns < optimal[:8] + 0.01)
    np.save(tmp_path / "starts.npy", starts[:8, 0])
    with pytest.raises(SystemExit, match=r"must hold finite states \[S, 2\]"):
        benchmark.main(words)
