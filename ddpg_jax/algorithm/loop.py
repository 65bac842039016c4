"""Algorithm 1 around `agent.update`: one agent acts, stores and learns for many steps in one compiled program.

The comments name the lines of Algorithm 1 (Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971). This file has
lines 3 to 11, and `agent.py` the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import agent, ema, noise, replay, rng
from ddpg_jax.algorithm.environment import Environment, Step
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


class ActionSample(NamedTuple):
    """An action with exploration noise, in the environment's units."""

    executed: jax.Array
    """[A] the action within the bounds."""
    stored: jax.Array
    """[A] the action as the replay stores it."""
    noise: Any
    """The state of the noise."""


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
        first_noise = setup.exploration.noise.init(hyperparameters.noise, environment.action_size)
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

        after = env_state, result.observation
        begin_if = partial(reset_if, key=randomness.reset_key, after_step=after, environment=setup.environment)
        return process_step(env, action, result, begin_if, hyperparameters, setup)

    env, transition, stats = over_envs(interact, setup)(randomness.interaction, state.env)
    return store(state, env, transition, setup), stats


def sample_action(
    randomness: InteractionRandomness, env: EnvState, state: TrainState, hyperparameters: Hyperparameters, setup: Setup
) -> ActionSample:
    """Selects the action a_t = mu(s_t) + N_t (line 8) in one of the agent's environments."""
    exploration, process = setup.exploration, hyperparameters.noise
    noise_state = exploration.noise.after(env.noise, randomness.shock, process)
    unit = noise.scale(process, episode_number(state, setup)) * jnp.asarray(exploration.noise_unit, jnp.float32)
    greedy = agent.act(state.agent, env.observation, algorithm=setup.algorithm)
    action = greedy.astype(jnp.float32) + unit * exploration.noise.value(noise_state)
    low, high = (jnp.asarray(bound, jnp.float32) for bound in (setup.environment.low, setup.environment.high))
    if randomness.action is not None:
        action = jnp.where(state.step < exploration.random_steps, randomness.action, action)
    executed = jnp.clip(action, low, high)
    return ActionSample(executed, executed if exploration.clip_stored_action else action, noise_state)


def process_step(
    env: EnvState,
    action: ActionSample,
    result: Step,
    begin_if: Callable[[jax.Array], tuple[Any, jax.Array]],
    hyperparameters: Hyperparameters,
    setup: Setup,
) -> tuple[EnvState, Transition, EpisodeStats]:
    """Processes the result of an action, and begins the next episode if this one has ended (lines 4 to 6).

    `env` is the environment before the action. `begin_if` maps whether the episode has ended to the state and the
    observation to continue from: those of a new episode if it has, otherwise those after the step.
    """
    exploration = setup.exploration
    length = env.episode.length + 1
    max_steps = min(setup.environment.max_steps, exploration.max_steps or setup.environment.max_steps)
    truncated = (result.truncated | (length >= max_steps)) & ~result.terminated
    ended = result.terminated | truncated
    total_reward = env.episode.total_reward + result.reward

    # Line 10: the transition to store; its observation is the one before any reset.
    no_future = ended if exploration.time_limit_terminal else result.terminated
    discount = 1.0 - no_future.astype(jnp.float32)
    # The target multiplies the value of a terminal state by 0, but 0 times NaN is NaN.
    next_observation = jnp.where(no_future & ~jnp.isfinite(result.observation), 0.0, result.observation)
    transition = Transition(env.observation, action.stored, result.reward, discount, next_observation)

    # Lines 4 to 6: begin the next episode if this one has ended.
    env_state, observation = begin_if(ended)
    next_noise = action.noise
    if exploration.noise_reset:
        first_noise = exploration.noise.init(hyperparameters.noise, setup.environment.action_size)
        next_noise = jax.tree.map(partial(jnp.where, ended), first_noise, next_noise)
    number = env.episode.number + ended.astype(jnp.int32)
    episode = Episode(number, jnp.where(ended, 0.0, total_reward), jnp.where(ended, 0, length))
    after = EnvState(env_state, observation, next_noise, episode)
    return after, transition, EpisodeStats(jnp.where(ended, length, 0), total_reward)


def reset_if(
    ended: jax.Array, key: PRNGKey, after_step: tuple[Any, jax.Array], environment: Environment
) -> tuple[Any, jax.Array]:
    """Returns the state and the observation of a new episode if one has ended, else those after the step.

    This is a loop of at most one round, because a reset may cost as much as hundreds of steps: under `vmap` the loop
    runs only if an episode of the group has ended, whereas both branches of a `cond` would always run. The key (which
    is consumed) changes in the carry, because XLA would move a reset that depends on no carry out of the loop.
    """

    def reset(carry: tuple[jax.Array, jax.Array, Any, jax.Array]) -> tuple[jax.Array, jax.Array, Any, jax.Array]:
        _, key_data, *_ = carry
        return jnp.bool_(False), key_data + 1, *environment.reset(jax.random.wrap_key_data(key_data))

    carry = ended, jax.random.key_data(key), *after_step
    return jax.lax.while_loop(lambda carry: carry[0], reset, carry)[2:]


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


def episode_number(state: TrainState, setup: Setup) -> jax.Array:
    """Returns the number of episodes before the current one, for schedules; with E environments, their mean."""
    number = state.env.episode.number
    return number if setup.num_envs == 1 else jnp.sum(number) // setup.num_envs


def decay_learning_rates(hyperparameters: Hyperparameters, episode: jax.Array) -> Hyperparameters:
    """Returns the hyperparameters with the learning rates of an episode, counted from 0."""
    decay = hyperparameters.lr_decay ** episode.astype(jnp.float32)
    actor_lr, critic_lr = hyperparameters.actor_lr * decay, hyperparameters.critic_lr * decay
    return hyperparameters._replace(actor_lr=actor_lr, critic_lr=critic_lr)


def to_row(stats: EpisodeStats, info: UpdateInfo) -> jax.Array:
    """Returns the numbers of a step as a row [F] of the log, float32."""
    return jnp.concatenate([jnp.atleast_1d(entry).astype(jnp.float32) for entry in (*info, *stats)])


def unpack_log(rows: np.ndarray) -> StepLog:
    """Returns the logs [N, n, F] of N agents in n steps as the fields of a `StepLog`, [N, n] and [N, n E]."""
    num_infos = len(UpdateInfo._fields)
    infos = np.moveaxis(rows[..., :num_infos], -1, 0)
    stats = np.split(rows[..., num_infos:], len(EpisodeStats._fields), axis=-1)
    return StepLog(*infos, *(entry.reshape(len(rows), -1) for entry in stats))
