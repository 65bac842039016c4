"""Tests environments of Gymnasium: what is refused before training, what agents see of them, how they are closed."""

import gymcases
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from ddpg_jax.environments.host import HostEnvFailure, film
from ddpg_jax.environments.registry import make_task

ALL, PENDULUM = np.array([True]), "gymnasium:Pendulum-v1"


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


def begun(env_id, num=1, **options):
    """Returns environments in which an episode has begun."""
    envs = make_task(env_id, **options).environment.host_env.make(num)
    envs.begin(np.arange(num), np.arange(num))
    return envs


def case(name):
    return f"gymnasium:gymcases:{name}-v0"


def case_of(**members):
    """A kind of environment of which some members are different."""
    return type("Case", (gymcases.Base,), members)


# What is refused


def returning(*values):
    return {"step": lambda self, action: (self.see(), *values)}


def bounded(low, high, dtype=np.float32):
    return {"action_space": spaces.Box(low, high, (1,), dtype)}


def no_simulator(self, action):
    raise OSError("no simulator\nat port 80")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"reset": lambda self, **kwargs: self.see()}, r"reset of '.*' returns ndarray, but must return \(observation"),
        ({"reset": lambda self: None}, r"reset of '.*' raises TypeError: .*'seed', but reset\(seed=...\) must return"),
        ({"step": no_simulator}, r"step of '.*' raises OSError: no simulator, but reset"),
        (returning(1.0, False, {}), r"step of '.*' raises ValueError: not enough"),  # the API before Gym 0.26
        (returning(1.0, None, False, {}), r"terminated of '.*' is None, but must be a number"),
        (returning(None, False, False, {}), r"reward of '.*' is None, but must be a number"),
        (returning(np.ones(3), False, False, {}), r"reward of '.*' is array\(\[1., 1., 1.\]\), but must be a number"),
        ({"see": lambda self: np.zeros(3)}, r"observation of '.*' after a reset does not fit Box\(.*, \(2,\)"),
        ({"see": lambda self: np.zeros(2 + (self.t > 1))}, r"observation of '.*' after a step does not fit Box"),
        (bounded(-3.4e38, 3.4e38), r"'gymnasium:CaseOfTest-v0'.*3.*e\+38,\).*, but must be at most"),
        (bounded(-np.inf, np.inf), r"^env_id is '.*', but .*: low is \(-inf,\), but must be finite"),
        (bounded(0, 5, dtype=np.int64), r"must have continuous actions; its actions are Box\(0, 5"),
        ({"observation_space": spaces.Sequence(spaces.Box(-1, 1))}, r"must observe a fixed number .* not Sequence"),
        ({"observation_space": None}, r"env_id is '.*', but must observe a fixed number of numbers, not None"),
    ],
)
def test_environment_that_cannot_be_used_is_refused_in_one_line_and_closed(members, message, register):
    closed = []
    with pytest.raises(ValueError, match=message) as refused:
        make_task(register(case_of(**members, close=lambda self: closed.append(self))))
    assert "\n" not in str(refused.value)
    assert len(closed) >= 1


@pytest.mark.parametrize(
    ("env_id", "env_args", "message"),
    [
        ("gymnasium:Nowhere-v0", (), r"but must be an environment of gymnasium that can be made here: NameNotFound"),
        ("gymnasium:no_such_module:X-v0", (), r"ModuleNotFoundError: No module named 'no_such_module'"),
        ("gymnasium:CartPole-v1", (), r"must have continuous actions; its actions are Discrete\(2\)"),
        (PENDULUM, ("max_episode_steps=0",), r"with env_args max_episode_steps=0, but .* AssertionError"),
        (PENDULUM, ("max_episode_steps=many",), r"max_episode_steps=many, but must be .*Error"),
        (PENDULUM, ("max_episode_steps=-1",), r"must have a time limit: --env-args max_episode_steps=1000"),
        (PENDULUM, ("mass=1",), r"TypeError: .*unexpected keyword argument 'mass'"),
        (case("Arguments"), ("flag=no",), r"env_args has flag=no, but must have true or false for flag"),
    ],
)
def test_names_and_arguments_that_gymnasium_refuses_are_refused_in_one_line(env_id, env_args, message):
    with pytest.raises(ValueError, match=message) as refused:
        make_task(env_id, env_args)
    assert "\n" not in str(refused.value)


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
    Licensed.free = 3
    with pytest.raises(ValueError, match=r"that can be made here: OSError: no licence is left"):
        host_env.make(4)
    assert Licensed.closed == 2 + 3


# Arguments


@pytest.mark.parametrize(("word", "reward"), [("flag=True", 2.0), ("flag=False", 0.0), ("weights=[1,2]", 3.0)])
def test_arguments_reach_the_environment(word, reward):
    assert begun(case("Arguments"), env_args=(word,)).step(np.zeros((1, 1)), ALL).reward.tolist() == [reward]


def test_lists_are_lists_and_each_environment_has_its_own(register):
    class Appending(gymcases.Arguments):
        def reward(self):
            self.weights.append(0.5)
            return super().reward()

    env_id = register(Appending)
    one, other = (make_task(env_id, ("weights=[1]",)).environment for _ in range(2))
    assert hash(one) == hash(other)  # they share a compiled program
    assert one == other
    envs = begun(env_id, 2, env_args=("weights=[1]",))
    assert envs.step(np.zeros((2, 1)), np.array([True, True])).reward.tolist() == [1.5, 1.5]


# Episodes


def test_array_that_the_environment_uses_again_is_copied():
    envs = begun(case("InPlace"), 2)
    first = envs.begin(np.arange(2), [0, 0])
    steps = [envs.step(np.zeros((2, 1)), np.ones(2, bool)) for _ in range(20)]
    second = envs.begin(np.arange(2), None)
    assert first.tolist() == second.tolist() == [[0.0, 0.5]] * 2
    assert [step.observation[0, 0] for step in steps] == list(range(1, 21))
    assert steps[-1].truncated.tolist() == [True, True]
    step = envs.step(np.zeros((2, 1)), np.array([False, True]))  # an inactive one keeps its observation
    assert (step.observation[:, 0].tolist(), step.reward.tolist()) == ([0.0, 1.0], [0.0, 1.0])


def test_arrays_with_one_number_are_numbers(register):
    arrays = np.array([2.0]), np.array([True]), jax.numpy.zeros((1, 1), bool)
    step = begun(register(case_of(**returning(*arrays, {})))).step(np.zeros((1, 1)), ALL)
    assert (step.reward.tolist(), step.terminated.tolist(), step.truncated.tolist()) == ([2.0], [True], [False])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_actions_have_the_spaces_dtype_and_shape_and_lie_inside(dtype, register):
    seen = []

    class Strict(gymcases.Base):
        action_space = spaces.Box(-0.1, 0.1, (1, 2), dtype)

        def step(self, action):
            assert self.action_space.contains(action)
            seen.append(action)
            return super().step(action)

    envs = begun(register(Strict))
    for action in ([-0.1, 0.1], [np.nan, 0.0], [np.inf, -np.inf]):
        envs.step(np.array([action], np.float32), ALL)
    low, high = dtype(-0.1), dtype(0.1)
    assert [action.tolist() for action in seen[-3:]] == [[[low, high]], [[0.0, 0.0]], [[high, low]]]


def test_repeated_actions_end_with_the_episode(register):
    def step(self, action):
        self.t += 1
        return self.see(), 1.0, self.t == 7, False, {}

    envs = begun(register(case_of(step=step)), action_repeat=5)
    steps = [envs.step(np.zeros((1, 1)), ALL) for _ in range(2)]
    assert [step.reward.tolist() for step in steps] == [[5.0], [2.0]]
    assert [step.terminated.tolist() for step in steps] == [[False], [True]]
    assert steps[1].observation[0, 0] == 7


def test_observations_of_several_arrays_are_flattened_in_a_recorded_order_and_drawn(register):
    observation = {"a": np.float32(0), "b": np.array([[7], [8]], np.float32), "c": (1,)}
    space = {"b": spaces.Box(-1, 1, (2, 1)), "a": spaces.Box(-1, 1, ()), "c": spaces.Tuple([spaces.Discrete(3)])}
    outlines = case_of(
        observation_space=spaces.Dict(space),
        see=lambda self: {**observation, "a": np.float32(self.t)},
        render=lambda self: np.full((20, 30, 3), 10 * self.t, np.uint8),
    )
    task = make_task(register(outlines), action_repeat=5)
    assert task.observation_parts == (("a", ()), ("b", (2, 1)), ("c.0", (3,)))
    assert task.environment.host_env.make(1).begin([0], [0]).tolist() == [[0, 7, 8, 0, 1, 0]]
    assert make_task(PENDULUM).observation_parts == ()
    frames = film(lambda observation: np.zeros(1, np.float32), task.film_env, task.evaluation_starts(1))
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 50, 100, 150, 200]
    assert frames[0].shape == (20, 30, 3)


def test_environment_that_does_not_draw_itself_can_be_trained_in(register):
    assert make_task(case("NoRender")).film_env is None
    task = make_task(register(case_of(render=lambda self: None)))
    with pytest.raises(HostEnvFailure, match=r"render of '.*' returns no frame \[H, W, 3\]"):
        film(lambda observation: np.zeros(1), task.film_env, task.evaluation_starts(1))


# Failures and ends


def test_failure_names_the_environment_and_its_error(monkeypatch):
    envs = begun(case("Raises"), 2)
    monkeypatch.setenv("RAISES_AT", str(gymcases.COUNT["steps"] + 3))
    envs.step(np.zeros((2, 1)), np.ones(2, bool))
    message = r"^step of 'gymnasium:gymcases:Raises-v0' raises RuntimeError: simulator lost its connection$"
    with pytest.raises(HostEnvFailure, match=message) as failed:
        envs.step(np.zeros((2, 1)), np.ones(2, bool))
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

    def close(self):
        closed.append(self)
        raise OSError("stuck")

    envs = begun(register(case_of(close=close)), 3)
    closed.clear()
    envs.close()
    assert len(closed) == 3
