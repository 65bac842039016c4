"""The optimum of Pendulum-v1 by dynamic programming: the returns that no policy can exceed.

A table of values over angle and velocity is computed backwards in time. A policy then looks one step ahead through it,
in the exact dynamics. Its return is a lower bound on the optimum's that becomes tight as the table is refined.

Angles are in rad, 0 upright, velocities in rad/s, torques in N·m. The dynamics are those of Gymnasium's Pendulum-v1
with its defaults (a rod of 1 kg and 1 m, g = 10 m/s², steps of 0.05 s).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

MAX_SPEED, MAX_TORQUE, TIME_STEP = 8.0, 2.0, 0.05
HORIZON = 200
"""Steps of an episode."""

_GRAVITY_GAIN, _TORQUE_GAIN = 15.0, 3.0  # 3 g / (2 l) and 3 / (m l²), in the acceleration in rad/s²
_TORQUES = 13  # that a search tries over their whole range, odd so that 0 is among them
_REFINED_TORQUES = 7  # that each refinement tries between the neighbours of the best one so far
_MAX_SWEEPS = 5000  # of value iteration, because rounding may keep it from converging


def step(angle: Any, velocity: Any, torque: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the next angle (not wrapped) and velocity, and the reward; all are arrays of one shape."""
    wrapped = jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi
    reward = -(wrapped**2 + 0.1 * velocity**2 + 0.001 * torque**2)
    acceleration = _GRAVITY_GAIN * jnp.sin(angle) + _TORQUE_GAIN * torque
    velocity = jnp.clip(velocity + TIME_STEP * acceleration, -MAX_SPEED, MAX_SPEED)
    return angle + TIME_STEP * velocity, velocity, reward


def observe(angle: jax.Array, velocity: jax.Array) -> jax.Array:
    """Returns Pendulum's observations [..., 3]: cosine and sine of the angle, and the velocity."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), velocity], axis=-1)


def axes(shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Returns the angles, from -pi up to but without pi, and the velocities of a table [angles, velocities]."""
    angles = -jnp.pi + 2 * jnp.pi / shape[0] * jnp.arange(shape[0])
    return angles, jnp.linspace(-MAX_SPEED, MAX_SPEED, shape[1])


@partial(jax.jit, static_argnames=("shape", "horizon"))
def finite_horizon(
    shape: tuple[int, int], discount: float = 1.0, horizon: int = HORIZON
) -> tuple[jax.Array, jax.Array]:
    """Computes the highest discounted returns that remain in an episode of T = `horizon` steps.

    Returns the values of start states [angles, velocities] and those after each step [T, angles, velocities], float32.
    """
    backwards = lambda values, _: (bellman(values, discount), values)  # noqa: E731
    return jax.lax.scan(backwards, jnp.zeros(shape), length=horizon, reverse=True)


@partial(jax.jit, static_argnames="shape")
def infinite_horizon(shape: tuple[int, int], discount: float, tolerance: float = 1e-4) -> jax.Array:
    """Computes the highest discounted returns of an episode that never ends, [angles, velocities] float32.

    Value iteration stops when no value changes by more than `tolerance` in a sweep. The discount must be below 1; the
    values are then within discount / (1 - discount) times the last change of their limit.
    """

    def is_changing(carry: tuple) -> jax.Array:
        return (carry[1] > tolerance) & (carry[2] < _MAX_SWEEPS)

    def sweep(carry: tuple) -> tuple:
        new = bellman(carry[0], discount)
        return new, jnp.max(jnp.abs(new - carry[0])), carry[2] + 1

    return jax.lax.while_loop(is_changing, sweep, (jnp.zeros(shape), jnp.float32(jnp.inf), jnp.int32(0)))[0]


def bellman(values: jax.Array, discount: float | jax.Array) -> jax.Array:
    """Returns the values [angles, velocities] one step earlier.

    A step first changes the velocity and then turns by the new one. So the values are first moved along the angle, by
    a distance that depends on the new velocity only. Then the best torque is searched along the velocity, per angle.
    """
    angles, velocities = axes((values.shape[0], values.shape[1]))
    turned = interpolate(values, *jnp.broadcast_arrays(angles[:, None] + TIME_STEP * velocities, velocities))
    pushed = velocities + TIME_STEP * _GRAVITY_GAIN * jnp.sin(angles)[:, None]
    rows = len(velocities) * jnp.arange(len(angles))[:, None]

    def value_of(torque: jax.Array) -> jax.Array:
        velocity = jnp.clip(pushed + TIME_STEP * _TORQUE_GAIN * torque, -MAX_SPEED, MAX_SPEED)
        return discount * _along_velocity(turned, rows, velocity) - 0.001 * torque**2

    best = _search(value_of, pushed, refinements=1)[1]
    return best - (angles**2)[:, None] - 0.1 * velocities**2


def greedy_torque(values: jax.Array, angle: jax.Array, velocity: jax.Array, discount: float | jax.Array) -> jax.Array:
    """Returns the best torques [S] in states [S], if `values` [angles, velocities] are those of the next states."""

    def value_of(torque: jax.Array) -> jax.Array:
        angle_after, velocity_after, reward = step(angle, velocity, torque)
        return reward + discount * interpolate(values, angle_after, velocity_after)

    return _search(value_of, angle, refinements=3)[0]


@jax.jit
def follow(
    values: jax.Array, angle: jax.Array, velocity: jax.Array, discount: float = 1.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs episodes from S states in the exact dynamics, with the greedy torque in every step.

    `values` are those after each step, of `finite_horizon` [T, angles, velocities], or those of `infinite_horizon`
    [angles, velocities], for `HORIZON` steps; `discount` is the one with which they were computed. Returns angles (not
    wrapped) and velocities before each step, and rewards, [T, S] each.
    """

    def forward(state: tuple[jax.Array, jax.Array], after: jax.Array | None) -> tuple[tuple, tuple]:
        torque = greedy_torque(values if after is None else after, *state, discount)
        angle, velocity, reward = step(*state, torque)
        return (angle, velocity), (*state, reward)

    xs, length = (values, None) if values.ndim == 3 else (None, HORIZON)
    return jax.lax.scan(forward, (angle, velocity), xs, length)[1]


def interpolate(values: jax.Array, angle: jax.Array, velocity: jax.Array) -> jax.Array:
    """Returns the values of a table [angles, velocities] at states of any shape, linearly in both directions."""
    # Cubic convolution leaves the range of its points: the maximum over torques selects its overshoots, which grow.
    num_angles, num_velocities = values.shape
    place = (angle + jnp.pi) * (num_angles / (2 * jnp.pi))
    weight = place - jnp.floor(place)
    below = jnp.floor(place).astype(jnp.int32)
    here, there = (_along_velocity(values, jnp.mod(below + i, num_angles) * num_velocities, velocity) for i in range(2))
    return (1 - weight) * here + weight * there


def _along_velocity(values: jax.Array, rows: jax.Array, velocity: jax.Array) -> jax.Array:
    """Returns the values of a table at velocities; `rows` has the places, in the flat table, of the states' rows."""
    num_velocities, flat = values.shape[1], values.ravel()
    place = (velocity + MAX_SPEED) * ((num_velocities - 1) / (2 * MAX_SPEED))
    below = jnp.minimum(jnp.floor(place), num_velocities - 2)
    weight, index = place - below, rows + below.astype(jnp.int32)
    lower, upper = (flat.at[index + i].get(mode="promise_in_bounds") for i in range(2))
    return (1 - weight) * lower + weight * upper


def _search(value_of: Callable, like: jax.Array, refinements: int) -> tuple[jax.Array, jax.Array]:
    """Returns the best torques and their values, of the shape of `like`: of a grid, then of finer ones around them."""

    def better(k: jax.Array, carry: tuple[jax.Array, ...], centre: jax.Array, spacing: float, half: int) -> tuple:
        torque, best = carry
        tried = jnp.clip(centre + (k - half) * spacing, -MAX_TORQUE, MAX_TORQUE)
        value = value_of(tried)
        return jnp.where(value > best, tried, torque), jnp.maximum(value, best)

    carry = jnp.zeros_like(like), jnp.full_like(like, -jnp.inf)
    spacing, num = 2 * MAX_TORQUE / (_TORQUES - 1), _TORQUES
    for _ in range(1 + refinements):
        try_one = partial(better, centre=carry[0], spacing=spacing, half=num // 2)
        carry = jax.lax.fori_loop(0, num, try_one, carry)
        num = _REFINED_TORQUES
        spacing /= (num + 1) / 2  # the next torques lie between the neighbours, which have been tried
    return carry
