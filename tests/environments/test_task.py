"""Tests the start states and keys of evaluations, the optimum, and that nothing of a user's environment is kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import counter

from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.environments.adapt import adapt
from ddpg_jax.environments.registry import make_task
from ddpg_jax.environments.task import EVALUATION_SEED, SELECTION_SEED, Task


@pytest.fixture(scope="module")
def gamble() -> Task:
    """Episodes of two steps whose rewards are random numbers; the state is a random number of the reset."""

    def reset(key):
        start = jax.random.uniform(key)
        return (start, jnp.int32(0)), start[None]

    def step(key, state, action):
        reward = jax.random.uniform(key)
        return (state[0], state[1] + 1), Step(state[0][None], reward, state[1] >= 1, jnp.bool_(False))

    return adapt(Environment("gamble", 1, (-1.0,), (1.0,), 10, reset, step))


def data(keys):
    return {tuple(key) for key in jax.random.key_data(keys).tolist()}


# Start states and keys


def test_start_states_are_drawn_from_a_seed_whatever_their_number(gamble):
    draws = ((gamble.evaluation_starts, EVALUATION_SEED), (gamble.selection_starts, SELECTION_SEED))
    for starts_of, seed in (*draws, (partial(gamble.starts_of, 7), 7), (partial(gamble.starts_of, 3.0), np.uint8(3))):
        expected = [jax.random.uniform(jax.random.fold_in(jax.random.key(seed), i)) for i in range(5)]
        few, many = starts_of(3), starts_of(np.int64(5))
        assert many.state[0].tolist() == expected
        assert many.observation.tolist() == [[value] for value in expected]
        assert few.state[0].tolist() == expected[:3]
        assert data(few.key) == data(many.key[:3])


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
def test_seeds_that_would_be_cut_are_refused(gamble, seed):
    with pytest.raises(ValueError, match=rf"seed is {seed}, but must be a whole number >= 0 \(at most 4294967295\)"):
        gamble.starts_of(seed, 2)


def test_no_key_is_used_twice(gamble):
    """Neither by two episodes, nor by two seeds, nor by a reset and an episode."""
    starts = gamble.evaluation_starts(64), gamble.selection_starts(64), gamble.starts_of(0, 64)
    keys = [data(each.key) for each in starts]
    for seed in (EVALUATION_SEED, SELECTION_SEED, 0):
        keys.append(data(jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(64))))
    assert len(set.union(*keys)) == 6 * 64
    fixed = Task(counter(), starts=lambda num: (jnp.zeros(num), jnp.zeros((num, 1))))
    assert data(fixed.evaluation_starts(64).key) == keys[0]


# Environments that change


class Room:
    """An environment of methods: equal to itself, whatever its attributes are."""

    def __init__(self):
        self.offset, self.size = 0.0, 1

    def reset(self, key):
        return jnp.float32(self.offset), jnp.full(self.size, self.offset)

    def step(self, key, state, action):
        return state, Step(jnp.full(self.size, self.offset), jnp.float32(0), jnp.bool_(True), jnp.bool_(False))

    def task(self):
        return adapt(Environment("room", self.size, (-1.0,), (1.0,), 10, self.reset, self.step))


def test_changed_environment_starts_where_it_now_starts_and_is_checked_as_it_now_is():
    room = Room()
    task = room.task()
    assert task.evaluation_starts(2).state.tolist() == [0.0, 0.0]
    room.offset = 2.0
    assert room.task() == task
    for starts in (task.evaluation_starts(2), task.selection_starts(2), task.starts_of(0, 2)):
        assert starts.state.tolist() == [2.0, 2.0]
        assert starts.observation.tolist() == [[2.0], [2.0]]
    room.size = 3
    assert room.task().environment.observation_size == 3


def test_task_of_a_users_function_is_made_in_every_call(tmp_path, monkeypatch):
    """Even if the function changes a library's environment, which says of itself that it never changes."""
    (tmp_path / "changing_task.py").write_text(
        "from dataclasses import replace\nimport ddpg_jax\nLIMITS = [3, 4]\n"
        "def make():\n    task = ddpg_jax.make_task('Pendulum-v1')\n"
        "    return replace(task, environment=replace(task.environment, max_steps=LIMITS.pop(0)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    environments = [make_task("changing_task:make").environment for _ in range(2)]
    assert [each.max_steps for each in environments] == [3, 4]
    assert not any(each.cacheable for each in environments)


def test_task_of_a_library_is_made_once():
    assert make_task("Pendulum-v1") is make_task("Pendulum-v1")
    assert make_task("Pendulum-v1").environment.cacheable
    assert make_task("Pendulum-v1", action_repeat=np.int64(2)) is make_task("Pendulum-v1", (), 2.0)
    assert not adapt(counter()).environment.cacheable


# The optimum


def test_optimum_has_a_return_for_each_start_state():
    task = Task(counter(), optimal_returns=(1, 2, np.float32(3)))
    assert task.optimum(2).tolist() == [1.0, 2.0]
    assert Task(counter()).optimum(2) is None
    with pytest.raises(ValueError, match=r"optimal_returns of 'counter' are 3 numbers, but must be at least 4"):
        task.optimum(4)


@pytest.mark.parametrize("returns", [(1.0, np.nan), 3.0, [[1.0]]])
def test_optimum_is_finite_numbers(returns):
    with pytest.raises(ValueError, match=r"optimal_returns is .*, but must be finite numbers"):
        Task(counter(), optimal_returns=returns)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "gymnasium:Pendulum-v1"])
@pytest.mark.parametrize("changes", [{"env_args": ("g=1.0",)}, {"action_repeat": 4}])
def test_changed_pendulum_has_no_optimum_and_no_table_of_start_states(env_id, changes):
    plain, changed = make_task(env_id), make_task(env_id, **changes)
    assert plain.optimum(512).shape == (512,)
    assert (changed.optimum(512), changed.solved_shortfall, changed.starts) == (None, None, None)
    with pytest.raises(ValueError, match=r"513, but .* 512"):
        plain.evaluation_starts(513)
    assert len(changed.evaluation_starts(513).observation) == 513
