"""Algorithm 1 around `agent.update`: one agent acts, stores and learns for many steps in one compiled program.

The comments name the lines of Algorithm 1 (Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971). This file has
lines 3, 9 and 11; `interaction.py` has lines 4 to 6, 8 and 10, and `agent.py` the others.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import agent, ema, noise, replay, rng
from ddpg_jax.algorithm.interaction import episode_number, process_step, reset_if, sample_action
from ddpg_jax.algorithm.rng import InteractionRandomness, StepRandomness
from ddpg_jax.algorithm.setup import Setup
from ddpg_jax.algorithm.types import (
    EnvState,
    Episode,
    EpisodeStats,
    Hyperparameters,
    PRNGKey,
    StepLog,
    TrainState,
    Transition,
    UpdateInfo,
)

STEPS_PER_DRAW = 125
"""Steps whose random numbers are drawn together (measured: with fewer, each step takes longer)."""

_Carry: TypeAlias = tuple[TrainState, jax.Array]  # an agent, and the log of its steps


def init(key: PRNGKey, hyperparameters: Hyperparameters, *, setup: Setup) -> TrainState:
    """Returns an agent at the start of its first episode (lines 1 to 6), with an empty replay. Consumes the key."""
    key, agent_key, reset_key = jax.random.split(key, 3)
    environment = setup.environment
    # Lines 1 and 2: initialise the networks and their targets.
    new = agent.init(agent_key, jnp.zeros(environment.observation_size, jnp.float32), algorithm=setup.algorithm)
    new = ema.init(new) if setup.ema else new
    # Line 3: initialise the replay.
    empty = replay.init(setup.replay_capacity, environment.observation_size, environment.action_size)

    # Lines 4 to 6: begin the first episode in each environment.
    def begin(key: PRNGKey) -> EnvState:
        state, observation = environment.reset(key)
        first_noise = noise.init(hyperparameters.noise, environment.action_size)
        return EnvState(state, observation, first_noise, Episode(jnp.int32(0), jnp.float32(0), jnp.int32(0)))

    env = begin(reset_key) if setup.num_envs == 1 else jax.vmap(begin)(jax.random.split(reset_key, setup.num_envs))
    return TrainState(new, empty, env, key, jnp.int32(0))


def train(
    state: TrainState, hyperparameters: Hyperparameters, num_steps: jax.Array, *, setup: Setup, max_steps: int
) -> tuple[TrainState, jax.Array]:
    """Advances one agent by `num_steps` steps of the loop, at most `max_steps`, with their updates.

    `num_steps` is an array, so that one compiled program serves every chunk of a run. All conditions depend on counters
    that agents under `vmap` share: otherwise each agent would compute both branches.

    Returns the state, and a log [max_steps, F] with a row per step, 0 from num_steps on (`unpack_log` reads it).
    """

    def steps(first: jax.Array | int, last: jax.Array, carry: _Carry, *, learns: bool) -> _Carry:
        def some_steps(number: jax.Array, carry: _Carry) -> _Carry:
            start = first + number * STEPS_PER_DRAW
            drawn = rng.sample_step_randomness(carry[0], STEPS_PER_DRAW, setup=setup)

            def one_step(i: jax.Array, carry: _Carry) -> _Carry:
                state, row = step(carry[0], rng.at(drawn, i - start), hyperparameters, setup=setup, learns=learns)
                return state, jax.lax.dynamic_update_slice_in_dim(carry[1], row[None], i, axis=0)

            return jax.lax.fori_loop(start, jnp.minimum(start + STEPS_PER_DRAW, last), one_step, carry)

        num_draws = (last - first + STEPS_PER_DRAW - 1) // STEPS_PER_DRAW
        return jax.lax.fori_loop(0, num_draws, some_steps, carry)

    num_columns = len(UpdateInfo._fields) + len(EpisodeStats._fields) * setup.num_envs
    num_gathering = jnp.clip(setup.first_update - 1 - state.step, 0, num_steps)
    carry = steps(0, num_gathering, (state, jnp.zeros((max_steps, num_columns), jnp.float32)), learns=False)
    return steps(num_gathering, num_steps, carry, learns=True)


def step(
    state: TrainState, randomness: StepRandomness, hyperparameters: Hyperparameters, *, setup: Setup, learns: bool
) -> tuple[TrainState, jax.Array]:
    """Makes one step (lines 8 to 10, and 11 to 15 if the agent `learns`), and returns its row [F] of the log."""
    now = decay_learning_rates(hyperparameters, episode_number(state, setup))  # before the step can end the episode
    state, stats = explore(state, randomness, hyperparameters, setup=setup)
    state, info = update_agent(state, randomness, now, setup, learns=True) if learns else (state, _no_update())
    return state, to_row(stats, info)


def explore(
    state: TrainState, randomness: StepRandomness, hyperparameters: Hyperparameters, *, setup: Setup
) -> tuple[TrainState, EpisodeStats]:
    """Acts with noise, executes and stores (lines 8 to 10); begins the next episode if one has ended (lines 4 to 6)."""
    state = state._replace(agent=setup.exploration.observe(state.agent, state.env.observation))

    def interact(randomness: InteractionRandomness, env: EnvState) -> tuple[EnvState, Transition, EpisodeStats]:
        action = sample_action(randomness, env, state, hyperparameters, setup)
        # Line 9: execute a_t, observe reward r_t and new state s_{t+1}.
        env_state, result = setup.environment.step(randomness.step_key, env.state, action.executed)

        def begin_if(ended: jax.Array) -> tuple[Any, jax.Array]:
            return reset_if(ended, randomness.reset_key, (env_state, result.observation), setup.environment)

        return process_step(env, action, result, begin_if, hyperparameters=hyperparameters, setup=setup)

    env, transition, stats = over_envs(interact, setup)(randomness.interaction, state.env)
    return store(state, env, transition, setup), stats


def over_envs(function: Callable[..., Any], setup: Setup) -> Callable[..., Any]:
    """Returns the function of one environment as one of all environments of an agent."""
    return function if setup.num_envs == 1 else jax.vmap(function)


def store(state: TrainState, env: EnvState, transition: Transition, setup: Setup) -> TrainState:
    """Returns the state one step later, with one transition per environment stored (line 10)."""
    add = replay.add if setup.num_envs == 1 else replay.add_all
    return state._replace(replay=add(state.replay, transition), env=env, step=state.step + 1)


def update_agent(
    state: TrainState,
    randomness: StepRandomness,
    hyperparameters: Hyperparameters,
    setup: Setup,
    learns: jax.Array | bool,
) -> tuple[TrainState, UpdateInfo]:
    """Makes the updates of the latest step (lines 11 to 15), if it has any; returns the sums of their `UpdateInfo`.

    `hyperparameters` has the learning rates of the step's episode; `learns` is whether `setup.first_update` has been
    reached, the same for agents that advance together.
    """

    def update(number: jax.Array, state: TrainState) -> tuple[TrainState, UpdateInfo]:
        # Line 11: sample a random minibatch of transitions; its rows have been drawn (`rng.py`).
        rows, key = rng.of_update(randomness, number, state, setup=setup)
        batch = setup.reader(state.replay, rows, setup.environment.action_size, hyperparameters)
        # Lines 12 to 15.
        new, info = agent.update(key, state.agent, batch, algorithm=setup.algorithm, hyperparameters=hyperparameters)
        return state._replace(agent=ema.update(new, hyperparameters)), info

    if learns is True and setup.updates_once_per_step:
        return update(jnp.int32(0), state)

    def update_again(number: jax.Array, carry: tuple[TrainState, UpdateInfo]) -> tuple[TrainState, UpdateInfo]:
        state, info = update(number, carry[0])
        return state, jax.tree.map(jnp.add, carry[1], info)

    latest_step = state.step - 1  # counted from 0
    num_updates = jnp.where((latest_step % setup.train_every == 0) & learns, setup.updates_per_train, 0)
    return jax.lax.fori_loop(0, num_updates, update_again, (state, _no_update()))


def _no_update() -> UpdateInfo:
    return UpdateInfo(*(jnp.float32(0) for _ in UpdateInfo._fields))


def decay_learning_rates(hyperparameters: Hyperparameters, episode: jax.Array) -> Hyperparameters:
    """Returns the hyperparameters with the learning rates of an episode, counted from 0."""
    decay = hyperparameters.lr_decay ** episode.astype(jnp.float32)
    rates = {name: getattr(hyperparameters, name) * decay for name in ("actor_lr", "critic_lr")}
    return hyperparameters._replace(**rates)


def to_row(stats: EpisodeStats, info: UpdateInfo) -> jax.Array:
    """Returns the numbers of a step as a row [F] of the log, float32."""
    return jnp.concatenate([jnp.atleast_1d(entry).astype(jnp.float32) for entry in (*info, *stats)])


def unpack_log(rows: np.ndarray) -> StepLog:
    """Returns the logs [N, n, F] of N agents in n steps as the fields of a `StepLog`, [N, n] and [N, n E]."""
    num_infos = len(UpdateInfo._fields)
    infos = np.moveaxis(rows[..., :num_infos], -1, 0)
    stats = np.split(rows[..., num_infos:], len(EpisodeStats._fields), axis=-1)
    return StepLog(*infos, *(entry.reshape(len(rows), -1) for entry in stats))
