"""Tests the loop around the update: what happens in which step, and with which numbers."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import counter, every_row, setup_for, small_config, stored

from ddpg_jax.algorithm import agent, loop
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.replay import Sampler
from ddpg_jax.algorithm.setup import with_parts
from ddpg_jax.algorithm.types import StepLog, TrainState
from ddpg_jax.training.setup_factory import make_hyperparameters

MAX_STEPS = 130
"""More than the loop draws random numbers for at once."""
COUNTER = counter(length=3)


class Learner:
    """A configuration's training program in an environment with 3 steps per episode, and a state to begin with."""

    def __init__(self, *, sampler: Sampler | None = None, **changes) -> None:
        self.config = small_config(**changes)
        self.setup = setup_for(self.config, COUNTER)
        if sampler is not None:
            self.setup = with_parts(self.setup, sampler=sampler)
        self.hyperparameters = make_hyperparameters(self.config)
        self.start = loop.init(jax.random.key(0), self.hyperparameters, setup=self.setup)
        self.traces = 0

        @jax.jit
        def program(state, hyperparameters, num_steps):
            self.traces += 1
            return loop.train(state, hyperparameters, num_steps, setup=self.setup, max_steps=MAX_STEPS)

        self.program = program

    def train(
        self, num_steps: int, state: TrainState | None = None, **hyperparameters: float
    ) -> tuple[TrainState, StepLog]:
        """Returns the state after this many steps, and their log [MAX_STEPS] in NumPy."""
        values = self.hyperparameters._replace(**hyperparameters)
        state, log = self.program(state or self.start, values, num_steps)
        return state, StepLog(*np.asarray(log).T)


def numbers(tree) -> list[np.ndarray]:
    """Returns the arrays of a tree, with keys as their data."""
    leaves = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in leaves]


def equal(one, two) -> bool:
    """Returns whether two trees contain the same bits."""
    return all(np.array_equal(x, y) for x, y in zip(numbers(one), numbers(two), strict=True))


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner(learning_starts=10, noise_sigma=0.5)


def test_two_chunks_of_one_program_are_a_longer_chunk_to_the_bit(learner):
    whole, log = learner.train(MAX_STEPS)
    for first in (0, 4, 10, 100):
        part, first_log = learner.train(first)
        both, second_log = learner.train(MAX_STEPS - first, part)
        assert equal(both, whole)
        for entire, before, after in zip(log, first_log, second_log, strict=True):
            np.testing.assert_array_equal(entire, [*before[:first], *after[: MAX_STEPS - first]])
    learner.train(5, gamma=0.5, actor_lr=0.01)
    assert learner.traces == 1


def test_nothing_is_learned_before_the_replay_holds_enough(learner):
    before, _ = learner.train(9)
    assert equal(before.agent, learner.start.agent)
    assert int(before.replay.added) == 9
    after, log = learner.train(11)
    assert int(after.agent.step) == 2
    for losses in (log.critic_loss, log.actor_loss, log.q_mean):
        assert np.flatnonzero(losses).tolist() == [9, 10]  # the updates after steps 10 and 11
    assert log.episode_length.tolist() == [0, 0, 3] * 3 + [0, 0] + [0] * (MAX_STEPS - 11)
    assert log.episode_return.tolist() == [1, 2, 3] * 3 + [1, 2] + [0] * (MAX_STEPS - 11)


def test_updates_come_in_their_number_at_every_third_step():
    learner = Learner(train_every=3, updates_per_train=2, batch_size=5, sample_with_replacement=False)
    # Without replacement the first update waits for 5 transitions; the steps 1, 4, 7, … train: so 7, 10, 13 do.
    state, counts = learner.start, []
    for _ in range(14):
        state, _ = learner.train(1, state)
        counts.append(int(state.agent.step))
    assert counts == [0] * 6 + [2] * 3 + [4] * 3 + [6] * 2


@pytest.fixture(scope="module")
def of_all_rows() -> Learner:
    return Learner(
        sampler=every_row, batch_size=6, learning_starts=4, critic_lr=0.01, actor_lr=0.01, updates_per_train=2
    )


def test_update_learns_from_the_sampled_transitions_and_the_log_has_its_losses(of_all_rows):
    before, _ = of_all_rows.train(3)
    after, log = of_all_rows.train(1, before)
    rows = stored(after.replay, 1)  # with the transition of this very step
    batch = jax.tree.map(lambda x: x[[0, 1, 2, 3, 0, 1]], rows)
    expected, infos = before.agent, []
    for _ in range(2):
        parts = {"algorithm": of_all_rows.setup.algorithm, "hyperparameters": of_all_rows.hyperparameters}
        expected, info = agent.update(jax.random.key(0), expected, batch, **parts)
        infos.append(info)
    chex.assert_trees_all_close(after.agent, expected, rtol=1e-5, atol=1e-7)
    sums = [sum(values) for values in zip(*infos, strict=True)]
    np.testing.assert_allclose([field[0] for field in log[:4]], sums, rtol=1e-5)


@pytest.mark.parametrize(("steps", "length"), [(4, 0), (5, 3)])
def test_learning_rates_decay_by_episode_after_its_last_update(of_all_rows, steps, length):
    """Step 6 ends an episode; the gist counts it after the update, too."""
    start, _ = of_all_rows.train(steps)
    episode = start.env.episode._replace(number=jnp.int32(3))
    one, log = of_all_rows.train(1, start._replace(env=start.env._replace(episode=episode)), lr_decay=0.5)
    assert log.episode_length[0] == length
    two, _ = of_all_rows.train(1, start, actor_lr=0.01 / 8, critic_lr=0.01 / 8)
    assert equal(one.agent, two.agent)


# Keys


def shaky() -> Environment:
    """An environment that consumes each key that it receives."""

    def reset(key):
        state, observation = COUNTER.reset(key)
        return state, observation + jax.random.normal(key)

    def step(key, state, action):
        state, result = COUNTER.step(key, state, action)
        return state, result._replace(reward=result.reward + jax.random.normal(key))

    return replace(COUNTER, reset=reset, step=step)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_starts": 3},
        {"train_every": 2, "updates_per_train": 3, "sample_with_replacement": False},
        {"actor_dropout": 0.1, "critic_dropout": 0.1},
    ],
)
def test_no_key_is_used_twice(changes):
    """JAX checks it while a whole run is traced, from an agent's key on."""
    hyperparameters = make_hyperparameters(small_config(**changes))
    setup = setup_for(small_config(**changes), shaky())

    def run(key):
        state = loop.init(key, hyperparameters, setup=setup)
        state, _ = loop.train(state, hyperparameters, 5, setup=setup, max_steps=5)
        return loop.train(state, hyperparameters, 5, setup=setup, max_steps=5)[1]

    with jax.debug_key_reuse(True):
        jax.make_jaxpr(run)(jax.random.key(0))
