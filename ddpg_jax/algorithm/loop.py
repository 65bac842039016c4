"""Algorithm 1 around `agent.update`: one agent acts, stores and learns for a chunk of steps, all of it compiled.

The comments name the lines of Algorithm 1 (Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971). This file has
lines 3, 9 and 11; `interaction.py` has 4 to 6, 8 and 10, and `agent.py` the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import agent, averaging, draws, noise, replay
from ddpg_jax.algorithm.draws import InteractionDraws, StepDraws, UpdateDraws
from ddpg_jax.algorithm.interaction import Ended, Place, begin_lazily, choose, conclude, episode_of_agent
from ddpg_jax.algorithm.setup import Exploration as Exploration
from ddpg_jax.algorithm.setup import Setup as Setup
from ddpg_jax.algorithm.types import (
    Episode,
    Hyperparameters,
    PRNGKey,
    StepLog,
    TrainState,
    Transition,
    UpdateInfo,
)

DRAWN_AT_ONCE = 125
"""Steps whose random numbers are drawn together (measured: fewer take longer for each step)."""


class Outcome(NamedTuple):
    """The effect of a step on its episode; with E > 1 environments [E] for []."""

    episode_length: jax.Array
    """[] int32: steps of the episode that the step ended; 0 if it ended none."""
    episode_return: jax.Array
    """[] sum of the rewards of that episode, including this step."""


def init(key: PRNGKey, hyperparameters: Hyperparameters, *, setup: Setup) -> TrainState:
    """Returns an agent at the start of its first episode (lines 1 to 6), with an empty replay. The key is consumed."""
    key, agent_key, reset_key = jax.random.split(key, 3)
    environment = setup.environment
    # Lines 4 to 6: begin the first episode.
    state, observation = _starts(reset_key, setup)
    example = jnp.zeros(environment.observation_size, jnp.float32)
    new = agent.init(agent_key, example, algorithm=setup.algorithm)
    return TrainState(
        agent=averaging.begin(new) if setup.average_actor else new,
        # Line 3: initialise the replay.
        replay=replay.init(setup.replay_capacity, environment.observation_size, environment.action_size),
        noise=_for_each(noise.init(hyperparameters.noise, environment.action_size), setup),
        environment=state,
        observation=observation,
        episode=_for_each(Episode(jnp.int32(0), total_reward=jnp.float32(0), length=jnp.int32(0)), setup),
        key=key,
        step=jnp.int32(0),
    )


def _starts(key: PRNGKey, setup: Setup) -> tuple[Any, jax.Array]:
    """Begins an episode in each environment of an agent; the key is consumed."""
    if setup.num_envs == 1:
        return setup.environment.reset(key)
    return jax.vmap(setup.environment.reset)(jax.random.split(key, setup.num_envs))


def _for_each(tree: Any, setup: Setup) -> Any:
    """Returns the arrays of one environment for all environments of an agent."""
    if setup.num_envs == 1:
        return tree
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (setup.num_envs, *x.shape)), tree)


def train(
    state: TrainState, hyperparameters: Hyperparameters, num_steps: jax.Array, *, setup: Setup, max_steps: int
) -> tuple[TrainState, jax.Array]:
    """Advances one agent by `num_steps` environment steps, at most `max_steps`, with their updates.

    The number of steps is an array, so that one compiled program serves every chunk of a run. What a step does is
    decided by counters that agents under `vmap` share, so that no condition turns into the work of both its branches:
    first comes a loop that only gathers experience, then one that also learns.

    Returns:
        The state afterwards, and a log [max_steps, F] with one row per step and one column per number in a `StepLog`
        (`unpack_log` reads it); rows from num_steps on are 0.
    """
    num_columns = len(UpdateInfo._fields) + len(Outcome._fields) * setup.num_envs
    carry = (state, jnp.zeros((max_steps, num_columns), jnp.float32))
    gathering = jnp.clip(setup.first_update - 1 - state.step, 0, num_steps)
    steps = partial(_steps, hyperparameters=hyperparameters, setup=setup)
    carry = steps(0, gathering, carry, learns=False)
    return steps(gathering, num_steps, carry, learns=True)


def _steps(
    first: jax.Array | int,
    last: jax.Array,
    carry: tuple[TrainState, jax.Array],
    *,
    learns: bool,
    hyperparameters: Hyperparameters,
    setup: Setup,
) -> tuple[TrainState, jax.Array]:
    """Makes the steps of a chunk from `first` up to `last`; their random numbers are drawn for some steps at once."""
    no_update = UpdateInfo(*(jnp.float32(0) for _ in UpdateInfo._fields))

    def one_step(
        i: jax.Array, carry: tuple[TrainState, jax.Array], *, drawn: StepDraws, start: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        state, log = carry
        now = decayed(hyperparameters, episode_of_agent(state, setup))  # of the episode that this step may end
        own = draws.at(drawn, i - start)
        state, outcome = explore(state, own, hyperparameters, setup=setup)
        state, info = learn_again(state, own, now, setup=setup) if learns else (state, no_update)
        return state, write_row(log, i, outcome, info)

    def some_steps(part: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
        start = first + part * DRAWN_AT_ONCE
        drawn = draws.of_next_steps(carry[0], DRAWN_AT_ONCE, setup=setup)
        step = partial(one_step, drawn=drawn, start=start)
        return jax.lax.fori_loop(start, jnp.minimum(start + DRAWN_AT_ONCE, last), step, carry)

    return jax.lax.fori_loop(0, (last - first + DRAWN_AT_ONCE - 1) // DRAWN_AT_ONCE, some_steps, carry)


def explore(
    state: TrainState, drawn: StepDraws, hyperparameters: Hyperparameters, *, setup: Setup
) -> tuple[TrainState, Outcome]:
    """Acts with noise, executes and stores (lines 8 to 10), and begins an episode where one ended (lines 4 to 6)."""
    state = state._replace(agent=setup.exploration.observe(state.agent, state.observation))
    interact = partial(_interact, state=state, hyperparameters=hyperparameters, setup=setup)
    place, transition, ended = over_envs(interact, setup)(drawn.interaction, place_of(state))
    return stored(state, place, transition, setup), outcome_of(ended)


def _interact(
    drawn: InteractionDraws,
    place: Place,
    *,
    state: TrainState,
    hyperparameters: Hyperparameters,
    setup: Setup,
) -> tuple[Place, Transition, Ended]:
    """Makes a step in one environment of the agent; returns what `conclude` returns."""
    choice = choose(drawn, place, state=state, hyperparameters=hyperparameters, setup=setup)
    # Line 9: execute a_t, observe reward r_t and new state s_{t+1}.
    environment_state, step = setup.environment.step(drawn.step_key, place.environment, choice.executed)

    def begin(ended: jax.Array) -> tuple[Any, jax.Array]:
        return begin_lazily(ended, drawn.reset_key, (environment_state, step.observation), setup.environment)

    return conclude(place, choice, step, begin, hyperparameters=hyperparameters, setup=setup)


def over_envs(function: Callable[..., Any], setup: Setup) -> Callable[..., Any]:
    """Returns a function of trees for all environments of an agent, from that for one of them."""
    return function if setup.num_envs == 1 else jax.vmap(function)


def place_of(state: TrainState) -> Place:
    """Returns where the environments of an agent are."""
    return Place(state.environment, state.observation, state.noise, state.episode)


def stored(state: TrainState, place: Place, transition: Transition, setup: Setup) -> TrainState:
    """Returns the state one step later, with a transition of each environment stored (line 10)."""
    add = replay.add if setup.num_envs == 1 else replay.add_all
    after = add(state.replay, transition)
    after = after._replace(rows=setup.hold(after.rows))
    return state._replace(replay=after, step=state.step + 1, **place._asdict())


def outcome_of(ended: Ended) -> Outcome:
    """Returns what the log has of the episodes."""
    return Outcome(jnp.where(ended.ended, ended.length, 0), ended.total_reward)


def learn_again(
    state: TrainState,
    drawn: StepDraws,
    hyperparameters: Hyperparameters,
    *,
    setup: Setup,
    learns: jax.Array | bool = True,
) -> tuple[TrainState, UpdateInfo]:
    """Makes the updates that belong to the latest step, if the agent learns; returns the sums of their reports.

    `learns` is the same for agents that advance together.
    """
    if learns is True and setup.updates_once_per_step:
        return learn(state, draws.of_update(drawn, jnp.int32(0), state, setup=setup), hyperparameters, setup=setup)
    step = state.step - 1  # counted from 0
    num_updates = jnp.where((step % setup.train_every == 0) & learns, setup.updates_per_train, 0)

    def once_more(number: jax.Array, carry: tuple[TrainState, UpdateInfo]) -> tuple[TrainState, UpdateInfo]:
        own = draws.of_update(drawn, number, carry[0], setup=setup)
        state, info = learn(carry[0], own, hyperparameters, setup=setup)
        return state, jax.tree.map(jnp.add, carry[1], info)

    no_update = UpdateInfo(*(jnp.float32(0) for _ in UpdateInfo._fields))
    return jax.lax.fori_loop(0, num_updates, once_more, (state, no_update))


def learn(
    state: TrainState, drawn: UpdateDraws, hyperparameters: Hyperparameters, *, setup: Setup
) -> tuple[TrainState, UpdateInfo]:
    """Reads a minibatch and updates the agent once (lines 11 to 15)."""
    # Line 11: sample a random minibatch of transitions, whose rows have been drawn (`draws.py`).
    batch = setup.reader(state.replay, drawn.rows, setup.environment.action_size, hyperparameters)
    new, info = agent.update(drawn.key, state.agent, batch, algorithm=setup.algorithm, hyperparameters=hyperparameters)
    return state._replace(agent=averaging.follow(new, hyperparameters)), info


def decayed(hyperparameters: Hyperparameters, episode: jax.Array) -> Hyperparameters:
    """Returns the hyperparameters with the learning rates of an episode, counted from 0."""
    decay = hyperparameters.lr_decay ** episode.astype(jnp.float32)
    return hyperparameters._replace(
        actor_lr=hyperparameters.actor_lr * decay, critic_lr=hyperparameters.critic_lr * decay
    )


def write_row(log: jax.Array, i: jax.Array, outcome: Outcome, info: UpdateInfo) -> jax.Array:
    """Returns the log with row i filled in."""
    return jax.lax.dynamic_update_slice_in_dim(log, to_row(outcome, info)[None], i, axis=0)


def to_row(outcome: Outcome, info: UpdateInfo) -> jax.Array:
    """Returns the numbers of a step as a row [F] of the log, float32."""
    entries = StepLog(**info._asdict(), **outcome._asdict())
    numbers = [number for entry in entries for number in (entry if jnp.ndim(entry) else [entry])]
    return jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers])


def unpack_log(rows: np.ndarray) -> StepLog:
    """Returns the logs [N, n, F] of N agents in n steps as the fields of a `StepLog`, [N, n] and [N, n E]."""
    num_infos = len(UpdateInfo._fields)
    outcomes = np.split(rows[..., num_infos:], len(Outcome._fields), axis=-1)
    num_steps = rows.shape[1] * outcomes[0].shape[-1]
    infos = np.moveaxis(rows[..., :num_infos], -1, 0)
    return StepLog(*infos, *(part.reshape(len(rows), num_steps) for part in outcomes))
