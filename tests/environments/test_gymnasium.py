"""Tests environments of Gymnasium: what is refused before training, what agents see of them, how they are closed."""

import gymcases
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from ddpg_jax.environments.host import HostEnvFailure, film
from ddpg_jax.environments.registry import make_task

ALL = np.array([True])


@pytest.fixture
def register():
    """Registers a class for one test, and returns its env_id."""
    added = []

    def add(case, **options):
        added.append(f"{case.__name__}OfTest-v0")
        gymnasium.register(added[-1], entry_point=case, **{"max_episode_steps": 20, **options})
        return f"gymnasium:{added[-1]}"

    yield add
    for name in added:
        del gymnasium.registry[name]


def envs_of(env_id, num=1, env_args=(), action_repeat=1):
    return make_task(env_id, env_args, action_repeat).environment.host_env.make(num)


def case(name):
    return f"gymnasium:gymcases:{name}-v0"


# What is refused


class WrongShape(gymcases.Base):
    def see(self):
        return np.zeros(3, np.float32)


class Growing(gymcases.Base):
    def see(self):
        return np.zeros(2 + (self.t > 1), np.float32)


class NoSeed(gymcases.Base):
    def reset(self):
        return self.see(), {}


class NoReward(gymcases.Base):
    def reward(self):
        return None


class ThreeRewards(gymcases.Base):
    def reward(self):
        return np.ones(3)


class NoFlag(gymcases.Base):
    def step(self, action):
        return self.see(), 1.0, None, False, {}


class Fails(gymcases.Base):
    def step(self, action):
        raise OSError("no simulator\nat port 80")


class WholeActions(gymcases.Base):
    action_space = spaces.Box(0, 5, (1,), np.int64)


class Unbounded(gymcases.Base):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Sequences(gymcases.Base):
    observation_space = spaces.Sequence(spaces.Box(-1, 1, (2,)))


class NoSpace(gymcases.Base):
    observation_space = None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (gymcases.OldApi, r"reset of '.*' returns ndarray, but must return \(observation, info\)"),
        (WrongShape, r"observation of '.*' after a reset does not fit Box\(-inf, inf, \(2,\), float32\)"),
        (Growing, r"observation of '.*' after a step does not fit Box"),
        (NoSeed, r"reset of '.*' raises TypeError: .*'seed', but reset\(seed=...\) must return \(observation, info\)"),
        (NoReward, r"reward of '.*' is None, but must be a number"),
        (ThreeRewards, r"reward of '.*' is array\(\[1., 1., 1.\]\), but must be a number"),
        (NoFlag, r"terminated of '.*' is None, but must be a number"),
        (Fails, r"step of '.*' raises OSError: no simulator, but reset"),
        (
            gymcases.Huge,
            r"bounds of the actions of '.*' are \(-3.4.*e\+38,\) to .*, but must be finite and at most 1e30",
        ),
        (Unbounded, r"bounds of the actions of '.*' are \(-inf,\) to \(inf,\), but must be finite"),
        (WholeActions, r"env_id is '.*', but must have continuous actions; its actions are Box\(0, 5, \(1,\), int64\)"),
        (Sequences, r"env_id is '.*', but must observe a fixed number of numbers, not Sequence"),
        (NoSpace, r"env_id is '.*', but must observe a fixed number of numbers, not None"),
    ],
)
def test_environment_that_cannot_be_used_is_refused_in_one_line(environment, message, register):
    closed = []
    counted = type(environment.__name__, (environment,), {"close": lambda self: closed.append(self)})
    with pytest.raises(ValueError, match=message) as refused:
        make_task(register(counted))
    assert "\n" not in str(refused.value)
    assert len(closed) >= 1


@pytest.mark.parametrize(
    ("env_id", "env_args", "message"),
    [
        ("gymnasium:Nowhere-v0", (), r"but must be an environment of Gymnasium that can be made here: NameNotFound"),
        ("gymnasium:no_such_module:X-v0", (), r"ModuleNotFoundError: No module named 'no_such_module'"),
        ("gymnasium:CartPole-v1", (), r"must have continuous actions; its actions are Discrete\(2\)"),
        (
            "gymnasium:Pendulum-v1",
            ("max_episode_steps=0",),
            r"with env_args max_episode_steps=0, but .* AssertionError",
        ),
        ("gymnasium:Pendulum-v1", ("max_episode_steps=many",), r"max_episode_steps=many, but must be .*Error"),
        (
            "gymnasium:Pendulum-v1",
            ("max_episode_steps=-1",),
            r"must have a time limit: --env-args max_episode_steps=1000",
        ),
        ("gymnasium:Pendulum-v1", ("mass=1",), r"TypeError: .*unexpected keyword argument 'mass'"),
        (case("Switch"), ("flag=no",), r"env_args has flag=no, but must have true or false for flag"),
    ],
)
def test_names_and_arguments_that_gymnasium_refuses_are_refused_in_one_line(env_id, env_args, message):
    with pytest.raises(ValueError, match=message) as refused:
        make_task(env_id, env_args)
    assert "\n" not in str(refused.value)


def test_environment_without_a_time_limit_is_refused(register):
    env_id = register(gymcases.Base, max_episode_steps=None)
    with pytest.raises(ValueError, match=r"must have a time limit: --env-args max_episode_steps=1000"):
        make_task(env_id)
    assert make_task(env_id, ("max_episode_steps=1e3",)).environment.max_steps == 1000


def test_environments_that_cannot_be_made_as_often_as_needed_are_refused_and_closed(register):
    class Licensed(gymcases.Base):
        free, closed = 3, 0

        def __init__(self, render_mode=None):
            super().__init__(render_mode)
            Licensed.free -= 1
            if Licensed.free < 0:
                raise OSError("no licence is left")

        def close(self):
            Licensed.closed += 1

    host_env = make_task(register(Licensed)).environment.host_env  # makes and closes two
    assert Licensed.closed == 2
    Licensed.free = 3
    with pytest.raises(ValueError, match=r"an environment that can be made 4 times here: OSError: no licence is left"):
        host_env.make(4)
    assert Licensed.closed == 2 + 3


# Arguments


@pytest.mark.parametrize(
    ("env_id", "env_args", "reward"),
    [
        (case("Switch"), (), 1.0),
        (case("Switch"), ("flag=False",), 0.0),
        (case("Switch"), ("flag=none",), 0.0),
        (case("Listed"), ("weights=[1,2]",), 3.0),
    ],
)
def test_arguments_reach_the_environment(env_id, env_args, reward):
    envs = envs_of(env_id, env_args=env_args)
    envs.begin([0], [0])
    assert envs.step(np.zeros((1, 1)), ALL).reward.tolist() == [reward]


def test_lists_are_lists_and_each_environment_has_its_own(register):
    class Appending(gymcases.Listed):
        def reward(self):
            self.weights.append(0.5)
            return super().reward()

    task = make_task(register(Appending), ("weights=[1]",))
    assert hash(task.environment) == hash(make_task("gymnasium:AppendingOfTest-v0", ("weights=[1]",)).environment)
    envs = task.environment.host_env.make(2)
    envs.begin([0, 1], [0, 1])
    assert envs.step(np.zeros((2, 1)), np.array([True, True])).reward.tolist() == [1.5, 1.5]


# Episodes


def sync_rows(num_steps, actions, seeds, max_steps):
    """What Gymnasium's own vector of environments gives, with the observations before the resets."""
    envs = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.make("Pendulum-v1", max_episode_steps=max_steps)] * len(seeds),
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    rows = [envs.reset(seed=seeds)[0]]
    for i in range(num_steps):
        observation, reward, terminated, truncated, info = envs.step(actions[i])
        last = observation.copy()
        for index in np.flatnonzero(terminated | truncated):
            last[index] = info["final_obs"][index]
        rows += [last, reward, terminated, truncated, observation]
    return rows


def test_training_episodes_have_the_bits_of_gymnasiums_vector():
    """Seeds begin the first episodes; later ones go on with each environment's own random numbers."""
    actions = np.random.default_rng(0).uniform(-2, 2, (50, 3, 1)).astype(np.float32)
    envs = make_task("gymnasium:Pendulum-v1").environment.host_env.make(3, 20)
    rows = [envs.begin(np.arange(3), [1, 2, 2**32 - 1])]
    for action in actions:
        step = envs.step(action, np.ones(3, bool))
        observation, ended = step.observation.copy(), np.flatnonzero(step.terminated | step.truncated)
        if len(ended):
            observation[ended] = envs.begin(ended, None)
        rows += [*step, observation]
    for found, expected in zip(rows, sync_rows(50, actions, [1, 2, 2**32 - 1], 20), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_array_that_the_environment_uses_again_is_copied():
    envs = envs_of(case("InPlace"), num=2)
    first = envs.begin(np.arange(2), [0, 0])
    steps = [envs.step(np.zeros((2, 1)), np.ones(2, bool)) for _ in range(20)]
    begun = envs.begin(np.arange(2), None)
    assert first.tolist() == begun.tolist() == [[0.0, 0.5]] * 2
    assert [step.observation[0, 0] for step in steps] == list(range(1, 21))
    assert steps[-1].truncated.tolist() == [True, True]


class OneNumberArrays(gymcases.Base):
    def step(self, action):
        self.t += 1
        flag = np.array([self.t >= 3])
        return self.see(), np.float64(2.0), flag, jax.numpy.zeros((1, 1), bool), {}


@pytest.mark.parametrize(("environment", "reward"), [(gymcases.ArrayReward, 1.0), (OneNumberArrays, 2.0)])
def test_arrays_with_one_number_are_numbers(environment, reward, register):
    envs = envs_of(register(environment))
    envs.begin([0], [0])
    step = envs.step(np.zeros((1, 1)), ALL)
    assert (step.reward.tolist(), step.terminated.tolist(), step.truncated.tolist()) == ([reward], [False], [False])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_actions_have_the_spaces_dtype_and_shape_and_lie_inside(dtype, register):
    seen = []

    class Strict(gymcases.Base):
        action_space = spaces.Box(-0.1, 0.1, (1, 2), dtype)

        def step(self, action):
            assert self.action_space.contains(action)
            seen.append(action)
            return super().step(action)

    envs = envs_of(register(Strict))
    envs.begin([0], [0])
    for action in ([-0.1, 0.1], [np.nan, 0.0], [np.inf, -np.inf]):
        envs.step(np.array([action], np.float32), ALL)
    low, high = dtype(-0.1), dtype(0.1)
    assert [action.tolist() for action in seen[-3:]] == [[[low, high]], [[0.0, 0.0]], [[high, low]]]


def test_repeated_actions_end_with_the_episode(register):
    class Ends(gymcases.Base):
        def step(self, action):
            observation, reward, *_ = super().step(action)
            return observation, reward, self.t == 7, False, {}

    envs = envs_of(register(Ends), action_repeat=5)
    envs.begin([0], [0])
    steps = [envs.step(np.zeros((1, 1)), ALL) for _ in range(2)]
    assert [step.reward.tolist() for step in steps] == [[5.0], [2.0]]
    assert [step.terminated.tolist() for step in steps] == [[False], [True]]
    assert steps[1].observation[0, 0] == 7


def test_inactive_environments_keep_their_observation():
    envs = envs_of(case("InPlace"), num=2)
    envs.begin(np.arange(2), [0, 0])
    step = envs.step(np.zeros((2, 1)), np.array([False, True]))
    assert step.observation[:, 0].tolist() == [0.0, 1.0]
    assert step.reward.tolist() == [0.0, 1.0]


def test_different_seeds_begin_different_episodes_that_do_not_depend_on_how_many_there_are():
    task = make_task("gymnasium:Pendulum-v1")
    seeds = [task.starts_of(seed, 64).state for seed in range(4)]
    drawn = {*np.concatenate(seeds).tolist(), *task.selection_starts(64).state.tolist()}
    assert len(drawn) == 5 * 64
    assert task.starts_of(3, 16).state.tolist() == seeds[3][:16].tolist()
    assert seeds[0].dtype == np.uint32


class Outlines(gymcases.Base):
    """Observations in a dictionary, with a discrete one in it."""

    observation_space = spaces.Dict(
        {"b": spaces.Box(-1, 1, (2, 1)), "a": spaces.Box(-1, 1, ()), "c": spaces.Tuple([spaces.Discrete(3)])}
    )

    def see(self):
        return {"a": np.float32(self.t), "b": np.array([[7], [8]], np.float32), "c": (1,)}

    def render(self):
        return np.full((20, 30, 3), 10 * self.t, np.uint8)


def test_observations_of_several_arrays_are_flattened_in_a_recorded_order(register):
    task = make_task(register(Outlines))
    assert task.observation_parts == (("a", ()), ("b", (2, 1)), ("c.0", (3,)))
    assert task.environment.host_env.make(1).begin([0], [0]).tolist() == [[0, 7, 8, 0, 1, 0]]
    assert make_task("gymnasium:Pendulum-v1").observation_parts == ()


# Films


def test_film_has_the_environments_own_frames(register):
    task = make_task(register(Outlines), action_repeat=5)
    frames = film(lambda observation: np.zeros(1, np.float32), task.film_env, task.evaluation_starts(1))
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 50, 100, 150, 200]
    assert frames[0].shape == (20, 30, 3)


def test_environment_that_does_not_draw_itself_can_be_trained_in():
    task = make_task(case("NoRender"))
    assert task.film_env is None
    with pytest.raises(HostEnvFailure, match=r"was made without frames"):
        task.environment.host_env.make(1).render(0)


# Failures and ends


def test_failure_names_the_environment_and_its_error(monkeypatch):
    envs = envs_of(case("Raises"), num=2)
    envs.begin(np.arange(2), [0, 1])
    monkeypatch.setenv("RAISES_AT", str(gymcases.COUNT["steps"] + 3))
    envs.step(np.zeros((2, 1)), np.ones(2, bool))
    message = r"^step of 'gymnasium:gymcases:Raises-v0' raises RuntimeError: simulator lost its connection$"
    with pytest.raises(HostEnvFailure, match=message) as failed:
        envs.step(np.zeros((2, 1)), np.ones(2, bool))
    assert failed.value.env_id == "gymnasium:gymcases:Raises-v0"
    assert str(failed.value.__cause__) == "simulator lost its connection"


def test_all_environments_are_closed():
    before = dict(gymcases.COUNT)
    task = make_task(case("Counted"))
    assert gymcases.COUNT["open"] == before["open"]
    envs = task.environment.host_env.make(5)
    assert gymcases.COUNT["open"] == before["open"] + 5
    envs.close()
    film(lambda observation: np.zeros(1), task.film_env, task.evaluation_starts(1))
    assert gymcases.COUNT["open"] == before["open"]


def test_environment_that_cannot_be_closed_leaves_no_other_open(register):
    closed = []

    class Stuck(gymcases.Base):
        def close(self):
            closed.append(self)
            raise OSError("stuck")

    envs = envs_of(register(Stuck), num=3)
    closed.clear()
    envs.close()
    assert len(closed) == 3
