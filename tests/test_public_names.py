"""What the package offers: the public names, what importing them loads, and names that used to stand elsewhere."""

import subprocess
import sys

import command
import pytest

import ddpg_jax
from ddpg_jax import algorithm

PUBLIC = {
    "Algorithm", "Config", "Environment", "History", "PRESETS", "Policy", "Setup", "Step", "load_policy", "make",
    "make_algorithm", "make_hyperparameters", "make_setup", "train", "use_all_cores",
}  # fmt: skip

FORMER_README = """
import jax
import jax.numpy as jnp
import ddpg_jax

config = ddpg_jax.PRESETS["pendulum"]
algorithm = ddpg_jax.make_algorithm(config, low=(-2.0,), high=(2.0,))
hyperparameters = ddpg_jax.make_hyperparameters(config)

key = jax.random.key(0)
state = ddpg_jax.init(key, jnp.zeros(3), algorithm=algorithm)
action = ddpg_jax.act(state, jnp.array([1.0, 0.0, 0.0]), algorithm=algorithm)

batch = ddpg_jax.Transition(
    observation=jnp.zeros((64, 3)),
    action=jnp.zeros((64, 1)),
    reward=jnp.zeros(64),
    discount=jnp.ones(64),
    next_observation=jnp.zeros((64, 3)),
)
state, info = ddpg_jax.update(key, state, batch, algorithm=algorithm, hyperparameters=hyperparameters)
"""


def loaded_after(code):
    """The modules that a program has loaded after these lines."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=command.REPOSITORY
    )
    return set(done.stdout.split())


def test_public_names_are_those_of_the_stub():
    assert set(ddpg_jax.__all__) == PUBLIC
    assert set(dir(ddpg_jax)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(ddpg_jax, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        ddpg_jax.no_such_name  # noqa: B018


def test_the_algorithm_offers_its_functions_types_and_modules():
    assert {"init", "act", "update", "replay", "noise", "losses", "Transition"} <= set(algorithm.__all__)
    for name in algorithm.__all__:
        assert getattr(algorithm, name) is not None


def test_importing_the_package_loads_no_jax():
    assert not loaded_after("import ddpg_jax") & {"jax", "numpy", "tyro", "rich"}


def test_training_from_python_loads_neither_the_command_line_nor_checkpoints_nor_locks():
    loaded = loaded_after("\n".join(["import ddpg_jax", *(f"ddpg_jax.{name}" for name in sorted(PUBLIC))]))
    assert "ddpg_jax.api" in loaded
    of_the_command = {f"ddpg_jax.runs.{name}" for name in ("checkpoint", "folder", "options", "session", "wave")}
    assert not loaded & {"tyro", "orbax", "ddpg_jax.command_line", "ddpg_jax.run", *of_the_command}  # JAX loads a lock


def test_names_that_moved_to_the_algorithm_are_still_found_here():
    exec(compile(FORMER_README, "former README", "exec"), {})
    assert ddpg_jax.Transition is algorithm.Transition
    assert ddpg_jax.init is algorithm.init
