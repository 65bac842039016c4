"""Algorithm 1 around `agent.update`: one agent acts, stores and learns for a chunk of steps, all of it compiled.

The comments name the lines of Algorithm 1 (Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971). This file has
lines 3 to 6 and 8 to 11; `agent.py` has the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.algorithm import agent, moments, noise, replay
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.replay import Reader, Sampler
from ddpg_jax.algorithm.types import (
    AgentState,
    Episode,
    Hyperparameters,
    PRNGKey,
    StepLog,
    TrainState,
    Transition,
    UpdateInfo,
)

Stored = TypeVar("Stored")
"""What a transition becomes: a replay that holds it, or the transition itself."""


@dataclass(frozen=True)
class Exploration:
    """How an agent gathers experience, apart from the noise's coefficients."""

    noise_unit: tuple[float, ...]
    """The change of each of the A actions by a noise of 1, in the environment's units."""
    noise_reset: bool = False
    """Start the noise anew in every episode (line 4), instead of letting it run on."""
    clip_stored_action: bool = True
    """Store the action as executed, instead of before it was clipped to the bounds."""
    max_steps: int | None = None
    """A time limit below the environment's own, or None."""
    time_limit_terminal: bool = False
    """Store a time limit as a terminal state."""
    random_steps: int = 0
    """Steps at the beginning of training whose actions are uniformly random within the bounds."""
    observe: Callable[[AgentState, jax.Array], AgentState] = moments.ignore
    """Takes note of an observation [O] before the agent acts on it (`moments.observe`)."""


@dataclass(frozen=True)
class Setup:
    """Everything from which a training program is compiled. Hashable: equal setups share one compilation."""

    environment: Environment
    """The task."""
    algorithm: Algorithm
    """The networks, the losses and the form of the update."""
    exploration: Exploration
    """How experience is gathered."""
    sampler: Sampler = replay.with_replacement
    """Chooses the rows of the replay at which a minibatch begins."""
    reader: Reader = replay.read
    """Reads the transitions that begin at those rows."""
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
    num_envs: int = 1
    """E, the environments that the agent steps side by side; each step of the loop adds a transition of each."""


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
    return TrainState(
        agent=agent.init(agent_key, example, algorithm=setup.algorithm),
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
    gathering = jnp.clip(setup.first_update - 1 - state.step, 0, num_steps)
    first_step = state.step
    no_update = UpdateInfo(*(jnp.float32(0) for _ in UpdateInfo._fields))

    def gather(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
        state, log = carry
        state, outcome = explore(state, hyperparameters, setup=setup)
        return state, _write(log, i, outcome, no_update)

    def gather_and_learn(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
        state, log = carry
        now = _decayed(hyperparameters, _episode_of_agent(state, setup))  # of the episode that this step may end
        state, outcome = explore(state, hyperparameters, setup=setup)
        if setup.train_every == setup.updates_per_train == 1:
            state, info = learn(state, now, setup=setup)
        else:
            trains = (first_step + i) % setup.train_every == 0
            num_updates = jnp.where(trains, setup.updates_per_train, 0)

            def learn_again(_: jax.Array, carry: tuple[TrainState, UpdateInfo]) -> tuple[TrainState, UpdateInfo]:
                state, info = learn(carry[0], now, setup=setup)
                return state, jax.tree.map(jnp.add, carry[1], info)

            state, info = jax.lax.fori_loop(0, num_updates, learn_again, (state, no_update))
        return state, _write(log, i, outcome, info)

    num_columns = len(UpdateInfo._fields) + len(Outcome._fields) * setup.num_envs
    carry = (state, jnp.zeros((max_steps, num_columns), jnp.float32))
    carry = jax.lax.fori_loop(0, gathering, gather, carry)
    return jax.lax.fori_loop(gathering, num_steps, gather_and_learn, carry)


def explore(state: TrainState, hyperparameters: Hyperparameters, *, setup: Setup) -> tuple[TrainState, Outcome]:
    """Acts with noise, executes and stores (lines 8 to 10), and begins an episode where one ended (lines 4 to 6).

    The state's key is replaced.
    """
    num_keys = 5 if setup.exploration.random_steps else 4
    key, *keys = jax.random.split(state.key, num_keys)
    state = state._replace(agent=setup.exploration.observe(state.agent, state.observation))
    place = Place(state.environment, state.observation, state.noise, state.episode)
    interact = partial(_interact, state=state, hyperparameters=hyperparameters, setup=setup)
    if setup.num_envs == 1:
        place, ring, episode = interact(keys, place, store=partial(replay.add, state.replay))
    else:
        each = [jax.random.split(one, setup.num_envs) for one in keys]
        place, transitions, episode = jax.vmap(partial(interact, store=lambda transition: transition))(each, place)
        ring = replay.add_all(state.replay, transitions)
    ended, length, total_reward = episode
    new = state._replace(
        replay=ring,
        noise=place.noise,
        environment=place.environment,
        observation=place.observation,
        episode=place.episode,
        key=key,
        step=state.step + 1,
    )
    return new, Outcome(jnp.where(ended, length, 0), total_reward)


class Place(NamedTuple):
    """Where one environment of an agent is."""

    environment: Any
    observation: jax.Array
    noise: jax.Array
    episode: Episode


def _interact(
    keys: list[PRNGKey],
    place: Place,
    *,
    state: TrainState,
    hyperparameters: Hyperparameters,
    setup: Setup,
    store: Callable[[Transition], Stored],
) -> tuple[Place, Stored, tuple[jax.Array, jax.Array, jax.Array]]:
    """Makes a step in one environment of the agent.

    Returns:
        Where the environment is then, what `store` makes of the transition, and whether the episode ended, its length
        and its sum of rewards.
    """
    noise_key, step_key, reset_key, *random_key = keys
    environment, exploration, process = setup.environment, setup.exploration, hyperparameters.noise

    # Line 8: select action a_t = mu(s_t) + N_t.
    noise_value = noise.step(noise_key, place.noise, process)
    unit = noise.scale(process, _episode_of_agent(state, setup)) * jnp.asarray(exploration.noise_unit, jnp.float32)
    greedy = agent.act(state.agent, place.observation, algorithm=setup.algorithm)
    chosen = greedy.astype(jnp.float32) + unit * noise_value
    low, high = (jnp.asarray(bound, jnp.float32) for bound in (environment.low, environment.high))
    for key in random_key:
        uniform = jax.random.uniform(key, low.shape, jnp.float32, low, high)
        chosen = jnp.where(state.step < exploration.random_steps, uniform, chosen)
    executed = jnp.clip(chosen, low, high)

    # Line 9: execute a_t, observe reward r_t and new state s_{t+1}.
    environment_state, step = environment.step(step_key, place.environment, executed)
    length = place.episode.length + 1
    max_steps = min(environment.max_steps, exploration.max_steps or environment.max_steps)
    truncated = (step.truncated | (length >= max_steps)) & ~step.terminated
    ended = step.terminated | truncated
    total_reward = place.episode.total_reward + step.reward

    # Line 10: store the transition; the observation is the one before any reset.
    no_future = ended if exploration.time_limit_terminal else step.terminated
    action = executed if exploration.clip_stored_action else chosen
    discount = 1.0 - no_future.astype(jnp.float32)
    transition = Transition(place.observation, action, step.reward, discount, step.observation)

    # Lines 4 to 6: begin the next episode where this one ended.
    fresh = (*environment.reset(reset_key), noise.init(process, environment.action_size))
    going_on = (environment_state, step.observation, noise_value)
    environment_state, observation, fresh_noise = jax.tree.map(lambda a, b: jnp.where(ended, a, b), fresh, going_on)
    stored = store(transition)
    new = Place(
        environment=environment_state,
        observation=observation,
        noise=fresh_noise if exploration.noise_reset else noise_value,
        episode=Episode(
            number=place.episode.number + ended.astype(jnp.int32),
            total_reward=jnp.where(ended, 0.0, total_reward),
            length=jnp.where(ended, 0, length),
        ),
    )
    return new, stored, (ended, length, total_reward)


def _episode_of_agent(state: TrainState, setup: Setup) -> jax.Array:
    """Returns the number of the episode for schedules; of E environments an E-th of the episodes that they ended."""
    number = state.episode.number
    return number if setup.num_envs == 1 else jnp.sum(number) // setup.num_envs


def learn(state: TrainState, hyperparameters: Hyperparameters, *, setup: Setup) -> tuple[TrainState, UpdateInfo]:
    """Samples a minibatch and updates the agent once (lines 11 to 15). The state's key is replaced."""
    key, sample_key, update_key = jax.random.split(state.key, 3)
    # Line 11: sample a random minibatch of transitions.
    indices = replay.choose(sample_key, state.replay, setup.batch_size, setup.sampler)
    batch = setup.reader(state.replay, indices, setup.environment.action_size, hyperparameters)
    new, info = agent.update(update_key, state.agent, batch, algorithm=setup.algorithm, hyperparameters=hyperparameters)
    return state._replace(agent=new, key=key), info


def _decayed(hyperparameters: Hyperparameters, episode: jax.Array) -> Hyperparameters:
    """Returns the hyperparameters with the learning rates of an episode, counted from 0."""
    decay = hyperparameters.lr_decay ** episode.astype(jnp.float32)
    return hyperparameters._replace(
        actor_lr=hyperparameters.actor_lr * decay, critic_lr=hyperparameters.critic_lr * decay
    )


def _write(log: jax.Array, i: jax.Array, outcome: Outcome, info: UpdateInfo) -> jax.Array:
    """Returns the log with row i filled in."""
    entries = StepLog(**info._asdict(), **outcome._asdict())
    numbers = [number for entry in entries for number in (entry if jnp.ndim(entry) else [entry])]
    row = jnp.stack([jnp.asarray(number, log.dtype) for number in numbers])
    return jax.lax.dynamic_update_slice_in_dim(log, row[None], i, axis=0)


def unpack_log(rows: np.ndarray) -> StepLog:
    """Returns the logs [N, n, F] of N agents in n steps as the fields of a `StepLog`, [N, n] and [N, n E]."""
    num_infos = len(UpdateInfo._fields)
    outcomes = np.split(rows[..., num_infos:], len(Outcome._fields), axis=-1)
    num_steps = rows.shape[1] * outcomes[0].shape[-1]
    infos = np.moveaxis(rows[..., :num_infos], -1, 0)
    return StepLog(*infos, *(part.reshape(len(rows), num_steps) for part in outcomes))
