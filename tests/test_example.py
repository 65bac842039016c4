"""`examples/ddpg.py` makes the same update as the package, treats the end of an episode right, and learns."""

import importlib.util
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpg_jax
from ddpg_jax import algorithm

EXAMPLE = Path(__file__).parent.parent / "examples/ddpg.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_ddpg", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def minibatch(size=64):
    """Returns transitions of Pendulum's sizes, some of which end in a terminal state."""
    generator = np.random.default_rng(0)
    observation, next_observation = generator.normal(size=(2, size, 3)).astype(np.float32)
    action = generator.uniform(-1, 1, (size, 1)).astype(np.float32)
    return (
        observation,
        action,
        generator.normal(size=size).astype(np.float32),
        np.arange(size) % 5 == 0,
        next_observation,
    )


def in_package_form(params):
    """Returns the parameters of a network of the example, named as the package names them."""
    layers = params["params"]
    hidden = {name: layers[name] for name in ("Dense_0", "Dense_1")}
    return hidden, {"Dense_0": layers["Dense_2"]}


def test_updates_end_in_the_parameters_of_the_package(example):
    config = ddpg_jax.Config(
        hidden_sizes=(64, 64), actor_lr=example.ACTOR_LR, critic_lr=example.CRITIC_LR, gamma=example.GAMMA,
        tau=example.TAU,
    )  # fmt: skip
    composed = ddpg_jax.make_algorithm(config, low=(-1.0,), high=(1.0,))
    hyperparameters = ddpg_jax.make_hyperparameters(config)
    env, _ = gymnax.make("Pendulum-v1")
    initial = example.init(jax.random.key(3), env)
    actor, critic = initial.actor, initial.critic
    observation, action, reward, terminated, next_observation = minibatch()

    state = algorithm.init(jax.random.key(0), jnp.zeros(3), algorithm=composed)
    hidden, final = in_package_form(actor.params)
    actor_variables = {"params": {"hidden": hidden, "final": final}}
    trunk, final = in_package_form(critic.params)
    critic_variables = {"params": {"trunk": trunk, "final": final}}
    assert jax.tree.structure((actor_variables, critic_variables)) == jax.tree.structure((state.actor, state.critic))
    state = state._replace(
        actor=actor_variables, target_actor=actor_variables, critic=critic_variables, target_critic=critic_variables
    )
    batch = algorithm.Transition(observation, action, reward, 1.0 - terminated, next_observation)
    for number in range(3):
        actor, critic = example.update(
            actor, critic, example.Transition(observation, action, reward, terminated, next_observation)
        )
        state, _ = algorithm.update(
            jax.random.key(number), state, batch, algorithm=composed, hyperparameters=hyperparameters
        )
    for found, expected in (
        (actor.params, state.actor), (actor.target_params, state.target_actor),
        (critic.params, state.critic), (critic.target_params, state.target_critic),
    ):  # fmt: skip
        hidden, final = in_package_form(found)
        for ours, theirs in zip(jax.tree.leaves([final, hidden]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_last_transition_of_an_episode_is_stored_before_the_reset(example):
    """Pendulum's episodes have 200 steps; row 199 is the last of the first episode."""
    env, _ = gymnax.make("Pendulum-v1")
    replay = example.train(jax.random.key(1), example.init(jax.random.key(0), env), env).replay
    same = np.all(np.asarray(replay.next_observation[:499]) == np.asarray(replay.observation[1:500]), axis=1)
    assert np.flatnonzero(~same).tolist() == [199, 399]
    # One step turns the pendulum by at most 8 rad/s times 0.05 s.
    angle, after = (np.arctan2(x[:, 1], x[:, 0]) for x in (replay.observation[:500], replay.next_observation[:500]))
    assert np.abs((after - angle + np.pi) % (2 * np.pi) - np.pi).max() < 0.4 + 1e-3
    assert not np.asarray(replay.terminated[:500]).any()


def test_learns_pendulum_and_shows_its_learning_curve(example, tmp_path, monkeypatch, capsys):
    """The optimum is about -137; an agent that does nothing gets about -1,200."""
    monkeypatch.chdir(tmp_path)
    curve = example.main(num_steps=5_000, seed=11)
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [f"step {step:6,}" for step in curve]
    assert list(curve) == [*range(500, 5_001, 500)]
    assert max(curve.values()) > -200
    assert (tmp_path / "learning_curve.png").stat().st_size > 1_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 16))
def test_learns_pendulum_with_every_seed(example, tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    assert example.main(seed=seed)[10_000] > -200


@pytest.mark.slow
def test_learns_where_an_episode_can_end_in_a_terminal_state(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert max(example.main(env_id="MountainCarContinuous-v0").values()) > 85
