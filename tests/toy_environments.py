"""Provides environments whose values are known by hand, and helpers to train in them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import loop, replay, rng
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.setup import Setup, with_parts
from ddpg_jax.algorithm.types import Replay, TrainState
from ddpg_jax.config import Config
from ddpg_jax.environments.adapt import adapt
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup


def counter(*, length: int = 3, terminates: bool = False, max_steps: int = 1000, bound: float = 10.0) -> Environment:
    """Observation: the steps of the episode so far. Reward: 1 per step. An episode ends after `length` steps."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(key, state, action):
        state = state + 1
        end, never = state >= length, jnp.bool_(False)
        ends = (end, never) if terminates else (never, end)
        return state, Step(state[None].astype(jnp.float32), jnp.float32(1), *ends)

    return Environment("counter", 1, (-bound,), (bound,), max_steps, reset, step)


def chain(rewards: tuple[float, ...]) -> Environment:
    """Observation: one place after another (one-hot), each with its reward. The last state is terminal."""
    num = len(rewards)

    def place(state):
        return jnp.float32(jnp.arange(num) == state)

    def reset(key):
        return jnp.int32(0), place(jnp.int32(0))

    def step(key, state, action):
        return state + 1, Step(place(state + 1), jnp.asarray(rewards)[state], state + 1 >= num, jnp.bool_(False))

    return Environment("chain", num, (-1.0,), (1.0,), 100, reset, step)


def one_step(env_id, low, high, draw, reward, *, terminates: bool = True) -> Environment:
    """An episode has one step. Observation: the state [1] that `draw(key)` returns. Reward: `reward(state, action)`."""

    def reset(key):
        state = draw(key)
        return state, state

    def step(key, state, action):
        return state, Step(state, reward(state, action), jnp.bool_(terminates), jnp.bool_(not terminates))

    return Environment(env_id, 1, low, high, 100, reset, step)


def one(key):
    return jnp.ones(1)


def treadmill() -> Environment:
    """Observation: one place. Reward: 1. Each episode ends at a time limit."""
    return one_step("treadmill", (-1.0,), (1.0,), one, lambda state, action: jnp.float32(1), terminates=False)


def aim(target: tuple[float, ...], low: tuple[float, ...], high: tuple[float, ...]) -> Environment:
    """The reward is minus the squared distance of the action to a target."""
    return one_step("aim", low, high, one, lambda state, action: -jnp.sum((action - jnp.asarray(target)) ** 2))


def follow() -> Environment:
    """The state is a random s in [-1, 1]; the reward is minus the squared distance of the action to (s / 2, -s)."""

    def draw(key):
        return jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)

    def reward(state, action):
        return -jnp.sum((action - jnp.stack([state[0] / 2, -state[0]])) ** 2)

    return one_step("follow", (-2.0, -2.0), (2.0, 2.0), draw, reward)


def small_config(**changes) -> Config:
    """Returns a configuration that compiles fast."""
    return Config(**{"hidden_sizes": (4,), "batch_size": 2, "replay_capacity": 50, **changes})


def setup_for(config: Config, environment: Environment) -> Setup:
    """Returns the setup for an environment, which is checked and adapted first."""
    return make_setup(config, adapt(environment, config.action_repeat).environment)


def trained(config: Config, environment: Environment, num_steps: int, *, num_agents: int = 1):
    """Trains agents for this many steps; returns their setup and their states [N, ...]."""
    setup = setup_for(config, environment)
    hyperparameters = make_hyperparameters(config)
    # Agents advance together: they share the counters of steps and rows.
    axes = TrainState(agent=0, replay=Replay(rows=0, added=None), env=0, key=0, step=None)
    train = jax.vmap(partial(loop.train, setup=setup, max_steps=num_steps), (axes, None, None), (axes, 0))
    starts = [loop.init(jax.random.key(i), hyperparameters, setup=setup) for i in range(num_agents)]
    start = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    start = start._replace(replay=start.replay._replace(added=jnp.int32(0)), step=jnp.int32(0))
    return setup, jax.jit(train, donate_argnums=0)(start, hyperparameters, num_steps)[0].agent


def explored(config: Config, environment: Environment, num_steps: int, **parts):
    """Acts for this many steps without an update; returns the rows stored, the state and the steps' `EpisodeStats`."""
    setup = setup_for(config, environment)
    hyperparameters = make_hyperparameters(config)
    setup = Setup(setup.environment, setup.algorithm, setup.exploration, replay_capacity=num_steps)
    setup = with_parts(setup, **parts)

    def explore(state, _):
        return loop.explore(state, rng.of_next_step(state, setup=setup), hyperparameters, setup=setup)

    start = loop.init(jax.random.key(0), hyperparameters, setup=setup)
    state, stats = jax.jit(lambda state: jax.lax.scan(explore, state, length=num_steps))(start)
    return stored(state.replay, setup.environment.action_size), state, jax.device_get(stats)


def every_row(key, batch_size: int, size: jax.Array) -> jax.Array:
    """Samples the rows in the order of the ring, again and again."""
    return jnp.arange(batch_size) % size


def stored(ring, action_size: int):
    """Returns all transitions of a replay, in the order of its rows."""
    return replay.unpack(np.asarray(ring.rows)[: int(ring.added)], action_size)
