"""Algorithm 1 around `agent.update`: one agent acts, stores and learns for a chunk of steps, all of it compiled."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import agent, replay
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.replay import Sampler
from ddpg_jax.algorithm.rollout import Exploration, Outcome, begin, explore
from ddpg_jax.algorithm.types import Hyperparameters, PRNGKey, StepLog, TrainState, UpdateInfo


@dataclass(frozen=True)
class Setup:
    """Everything that a training program is compiled from. Hashable: equal setups share one compilation."""

    environment: Environment
    """The task."""
    algorithm: Algorithm
    """The networks, the losses and the form of the update."""
    exploration: Exploration
    """How experience is gathered."""
    sampler: Sampler = replay.with_replacement
    """Which rows of the replay make a minibatch."""
    batch_size: int = 64
    """B."""
    replay_capacity: int = 50_000
    """Transitions that the replay holds before it overwrites the oldest."""
    first_update: int = 1
    """The step, counted from 1, after which the first update may happen."""
    train_every: int = 1
    """Steps between updates: those numbered 1, 1 + train_every, … train."""
    updates_per_train: int = 1
    """Updates each time."""


def init(key: PRNGKey, hyperparameters: Hyperparameters, *, setup: Setup) -> TrainState:
    """An agent at the start of its first episode (lines 1 to 6), with an empty replay. The key is consumed."""
    key, agent_key, reset_key = jax.random.split(key, 3)
    environment = setup.environment
    state, observation, noise, episode = begin(reset_key, environment, hyperparameters.noise)
    example = jnp.zeros(environment.observation_size, jnp.float32)
    return TrainState(
        agent=agent.init(agent_key, example, algorithm=setup.algorithm),
        # Line 3: initialise the replay.
        replay=replay.init(setup.replay_capacity, environment.observation_size, environment.action_size),
        noise=noise,
        environment=state,
        observation=observation,
        episode=episode,
        key=key,
        step=jnp.int32(0),
    )


def train(
    state: TrainState, hyperparameters: Hyperparameters, num_steps: jax.Array, *, setup: Setup, max_steps: int
) -> tuple[TrainState, jax.Array]:
    """`num_steps` environment steps of one agent, at most `max_steps`, with their updates.

    The number of steps is an array, so that one compiled program serves every chunk of a run. What a step does is
    decided by counters that agents under `vmap` share, so that no condition turns into the work of both its branches:
    first a loop that only gathers experience, then one that also learns.

    Returns:
        The state after, and a row [max_steps, 5] a step with the fields of `StepLog`; rows from num_steps on are 0.
    """
    gathering = jnp.clip(setup.first_update - 1 - state.step, 0, num_steps)
    first_step = state.step
    no_update = UpdateInfo(*(jnp.float32(0) for _ in UpdateInfo._fields))

    def gather(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
        state, log = carry
        state, outcome = _explore(state, hyperparameters, setup)
        return state, _write(log, i, outcome, no_update)

    def gather_and_learn(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
        state, log = carry
        now = _decayed(hyperparameters, state.episode.number)  # of the episode that this step may end
        state, outcome = _explore(state, hyperparameters, setup)
        if setup.train_every == setup.updates_per_train == 1:
            state, info = _learn(state, now, setup)
        else:
            trains = (first_step + i) % setup.train_every == 0
            num_updates = jnp.where(trains, setup.updates_per_train, 0)
            learn_again = partial(_learn_again, hyperparameters=now, setup=setup)
            state, info = jax.lax.fori_loop(0, num_updates, learn_again, (state, no_update))
        return state, _write(log, i, outcome, info)

    carry = (state, jnp.zeros((max_steps, len(StepLog._fields)), jnp.float32))
    carry = jax.lax.fori_loop(0, gathering, gather, carry)
    return jax.lax.fori_loop(gathering, num_steps, gather_and_learn, carry)


def _explore(state: TrainState, hyperparameters: Hyperparameters, setup: Setup) -> tuple[TrainState, Outcome]:
    """Lines 8 to 10, and 4 to 6 where an episode ended."""
    return explore(
        state,
        environment=setup.environment,
        algorithm=setup.algorithm,
        exploration=setup.exploration,
        process=hyperparameters.noise,
    )


def _learn(state: TrainState, hyperparameters: Hyperparameters, setup: Setup) -> tuple[TrainState, UpdateInfo]:
    """Lines 11 to 15: sample a minibatch and update. Replaces the key."""
    key, sample_key, update_key = jax.random.split(state.key, 3)
    # Line 11: sample a random minibatch of transitions.
    action_size = setup.environment.action_size
    batch = replay.sample(sample_key, state.replay, setup.batch_size, action_size, setup.sampler)
    new, info = agent.update(update_key, state.agent, batch, algorithm=setup.algorithm, hyperparameters=hyperparameters)
    return state._replace(agent=new, key=key), info


def _learn_again(
    _: jax.Array, carry: tuple[TrainState, UpdateInfo], *, hyperparameters: Hyperparameters, setup: Setup
) -> tuple[TrainState, UpdateInfo]:
    """One of several updates in a step; the info is their sum."""
    state, total = carry
    state, info = _learn(state, hyperparameters, setup)
    return state, jax.tree.map(jnp.add, total, info)


def _decayed(hyperparameters: Hyperparameters, episode: jax.Array) -> Hyperparameters:
    """The hyperparameters with the learning rates of an episode, counted from 0."""
    decay = hyperparameters.lr_decay**episode
    return hyperparameters._replace(
        actor_lr=hyperparameters.actor_lr * decay, critic_lr=hyperparameters.critic_lr * decay
    )


def _write(log: jax.Array, i: jax.Array, outcome: Outcome, info: UpdateInfo) -> jax.Array:
    """The log with row i filled in."""
    entries = StepLog(**info._asdict(), episode_length=outcome.episode_length, episode_return=outcome.episode_return)
    row = jnp.stack([jnp.asarray(entry, log.dtype) for entry in entries])
    return jax.lax.dynamic_update_slice(log, row[None], (i, 0))
