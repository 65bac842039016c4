"""Tests environments by name: functions of users, and libraries and what they have."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymcases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.environments import user_env
from ddpg_jax.environments.registry import is_user_env, listed, make_task

CART = """
import jax.numpy as jnp
import numpy as np

import ddpg_jax


def make_cart(length=1.0, falls=True, force=1.0):
    def reset(key):
        return jnp.array([0.0, 0.0]), jnp.array([0.0, 0.0])  # position in m, velocity in m/s

    def step(key, state, action):
        fallen = falls & (jnp.abs(state[0]) > length)
        return state, ddpg_jax.Step(state, -(state[0] ** 2), terminated=fallen, truncated=jnp.bool_(False))

    return ddpg_jax.Environment("cart", 2, (-force,), (force,), 100, reset, step)


def make_drawn_cart():
    draw = lambda states: [np.full((10, 20, 3), int(100 + 100 * state[0]), np.uint8) for state in states]
    return ddpg_jax.Task(make_cart(), optimal_returns=[0.0] * 8, solved_shortfall=1.0, draw=draw)
"""


@pytest.fixture
def cart(tmp_path, monkeypatch):
    """A module of the user's, under a name of its own for each test."""
    name = f"cart_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(CART)
    monkeypatch.syspath_prepend(tmp_path)
    return name


# Functions of users


def test_function_may_return_an_environment_or_a_task(cart):
    plain, drawn = make_task(f"{cart}:make_cart"), make_task(f"{cart}:make_drawn_cart")
    assert (plain.environment.env_id, plain.draw, plain.optimum(8)) == ("cart", None, None)
    assert drawn.draw([np.array([0.5, 0.0])])[0][0, 0, 0] == 150
    assert drawn.optimum(8).tolist() == [0.0] * 8


def test_arguments_reach_the_function(cart):
    action = jnp.zeros(1)
    for words, terminates in (((), False), (("length=0.25",), True), (("length=0.25", "falls=false"), False)):
        environment = make_task(f"{cart}:make_cart", words).environment
        assert bool(environment.step(jax.random.key(0), jnp.array([0.5, 0.0]), action)[1].terminated) == terminates


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("make_cart", ("falls=no",), r"env_args has falls=no, but must have true or false for falls"),
        ("make_cart", ("size=2",), r"with env_args size=2, but must be MODULE:FUNCTION, .*TypeError: .*'size'"),
        (
            "make_cart",
            ("force=0",),
            r"^env_id is 'cart_.*' with env_args force=0, .*: high is \(0.0,\), but must be above",
        ),
        ("make_cart", ("length=x",), r"step of 'cart' raises .*, but must return \(state, Step\)"),
        ("make_car", (), r"AttributeError: module '.*' has no attribute 'make_car'"),
        ("np", (), r"MODULE:FUNCTION, which can be called here .*: TypeError"),
    ],
)
def test_functions_that_make_nothing_are_refused(cart, name, words, message):
    with pytest.raises(ValueError, match=message):
        make_task(f"{cart}:{name}", words)


@pytest.mark.parametrize(
    ("env_id", "current", "of_the_run"), [("cart:make_cart", "own", "/"), ("gymnasium:cart:InPlace-v0", ".", "own")]
)
def test_module_is_found_in_the_current_folder_and_in_that_of_the_run(env_id, current, of_the_run, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "cart.py").write_text(CART + Path(gymcases.__file__).read_text())
    script = (
        "import sys; from ddpg_jax.environments import registry, user_env; user_env.look_in(sys.argv[2]);"
        "print(registry.is_user_env(sys.argv[1]), registry.make_task(sys.argv[1]).environment.env_id);"
        "print(user_env.folder_of(sys.argv[1]))"
    )
    # With -P Python itself does not look in the current folder.
    words = [sys.executable, "-P", "-c", script, env_id, str(tmp_path / of_the_run)]
    found = subprocess.run(words, cwd=tmp_path / current, capture_output=True, text=True)
    assert found.stderr == ""
    assert found.stdout.splitlines()[0].startswith("True ")
    assert found.stdout.splitlines()[1] == str(tmp_path / "own")


def test_folder_of_a_module_is_the_one_that_python_looks_in(tmp_path, monkeypatch):
    (tmp_path / "package_of_test" / "inner").mkdir(parents=True)
    for file in ("__init__.py", "inner/__init__.py", "inner/module.py"):
        (tmp_path / "package_of_test" / file).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("package_of_test", "package_of_test.inner", "package_of_test.inner.module"):
        assert user_env.folder_of(f"{module}:make") == str(tmp_path)
    assert user_env.folder_of("sys:exit") is None  # not made from a file
    assert [is_user_env(name) for name in ("gymnasium:Pendulum-v1", "Pendulum-v1", "brax:ant")] == [False] * 3


# Libraries


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("nowhere_to_be_found:make", r"must be MODULE:FUNCTION, .*: ModuleNotFoundError: No module named 'nowhere"),
        ("os:getpid", r"which can be called here and returns a ddpg_jax.Environment .*: TypeError: it returns int"),
        ("Pendulum-v9", r"^env_id is 'Pendulum-v9', which gymnax does not have, but must be one of Pendulum-v1, Mount"),
        ("gymnax:Pendulum-v9", r"^env_id is 'gymnax:Pendulum-v9', which gymnax does not have, but must be one of Pend"),
        ("CartPole-v1", r"^env_id is 'CartPole-v1', but must have continuous actions; its actions are Discrete"),
        ("HalfCheetah-v5", r"'HalfCheetah-v5', which gymnax .*, but must be gymnasium:HalfCheetah-v5$"),
    ],
)
def test_unknown_environments_are_refused(env_id, message):
    with pytest.raises(ValueError, match=message):
        make_task(env_id)


def test_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"brax is not installed; pip install .ddpg_jax\[brax\]"):
        make_task("brax:a-name-of-this-test")


def test_library_that_fails_is_named_and_stands_in_the_way_of_no_other(monkeypatch):
    def fail(*_):
        raise ImportError("of other versions")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in ("gymnax", "brax"))
    monkeypatch.setitem(sys.modules, "ddpg_jax.environments.brax", SimpleNamespace(has=fail, names=fail, make=fail))
    rule = "an environment of brax that can be made here: ImportError: of other versions"
    with pytest.raises(ValueError, match=f"env_id is 'brax:ant', but must be {rule}"):
        make_task("brax:ant")
    with pytest.raises(
        ValueError, match="env_id is 'Nope', which gymnax does not have, but must be one of Pendulum-v1"
    ):
        make_task("Nope")
    lines = list(listed())
    assert "brax: cannot be used here: ImportError: of other versions" in lines
    assert lines[0].startswith("Pendulum-v1: 3 observations")


def test_arguments_reach_gymnax():
    assert make_task("Pendulum-v1", ["max_steps_in_episode=5e1"]).environment.max_steps == 50
    heavy, plain = make_task("Pendulum-v1", ["g=20"]).environment, make_task("Pendulum-v1").environment
    state, _ = plain.reset(jax.random.key(0))
    speeds = [float(each.step(jax.random.key(0), state, jnp.zeros(1))[0].theta_dot) for each in (plain, heavy)]
    gravity = 0.05 * 15 * np.sin(float(state.theta))  # 3 g / (2 l) sin(angle) in a step of 0.05 s, g = 10
    np.testing.assert_allclose(speeds[1] - speeds[0], gravity, rtol=1e-5)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mass=2", r"env_args has mass=2, but must have numbers for parameters of Pendulum-v1: .*max_torque"),
        ("g=heavy", r"env_args has g=heavy, but must have numbers for parameters"),
        ("g=none", r"env_args has g=None, but must have numbers for parameters"),
        (
            "max_steps_in_episode=0",
            r"^env_id is 'Pendulum-v1' with env_args .*=0, but .*: max_steps is 0, but must be a wh",
        ),
        ("max_torque=1e31", r"bounds of the actions of 'Pendulum-v1' are"),
    ],
)
def test_arguments_that_gymnax_cannot_use_are_refused(word, message):
    with pytest.raises(ValueError, match=message):
        make_task("Pendulum-v1", [word])


def test_environment_that_a_program_registers_with_gymnax_may_change():
    import gymnax
    from gymnax.environments.classic_control.pendulum import Pendulum

    gymnax.register("Longer-v0", type("Longer", (Pendulum,), {}))
    task = make_task("Longer-v0")
    assert (task.environment.observation_size, task.environment.cacheable) == (3, False)
    assert make_task("Longer-v0") is not task


def test_environments_are_listed():
    lines = list(listed())
    assert "Pendulum-v1: 3 observations, 1 action, episodes of at most 200 steps" in lines
    assert "Reacher-misc: 8 observations, 2 actions, episodes of at most 100 steps" in lines
    assert "gymnasium:Pendulum-v1: 3 observations, 1 action, episodes of at most 200 steps" in lines
    assert not [line for line in lines if "CartPole" in line]
