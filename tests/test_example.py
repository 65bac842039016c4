"""`examples/ddpg.py` makes the same update as the package, treats the end of an episode right, and learns."""

import importlib.util
from pathlib import Path

import chex
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


def in_package_form(params, hidden):
    """Returns the parameters of a network of the example, named as the package names them."""
    layers = params["params"]
    return {"params": {hidden: {name: layers[name] for name in ("Dense_0", "Dense_1")},
                       "final": {"Dense_0": layers["Dense_2"]}}}  # fmt: skip


def test_updates_end_in_the_parameters_of_the_package(example):
    config = ddpg_jax.Config(
        hidden_sizes=(64, 64), actor_lr=example.ACTOR_LR, critic_lr=example.CRITIC_LR, gamma=example.GAMMA,
        tau=example.TAU,
    )  # fmt: skip
    parts = {"algorithm": ddpg_jax.make_algorithm(config, low=(-1.0,), high=(1.0,))}
    env, _ = gymnax.make("Pendulum-v1")
    actor, critic = example.init(jax.random.key(3), env)[:2]
    networks = {"actor": in_package_form(actor.params, "hidden"), "critic": in_package_form(critic.params, "trunk")}
    state = algorithm.init(jax.random.key(0), jnp.zeros(3), **parts)
    assert jax.tree.structure(networks) == jax.tree.structure({"actor": state.actor, "critic": state.critic})
    state = state._replace(**networks, target_actor=networks["actor"], target_critic=networks["critic"])

    draw = np.random.default_rng(0)
    rows = [draw.normal(size=(64, *shape)).astype(np.float32) for shape in ((3,), (1,), (), (3,))]
    terminated = np.arange(64) % 5 == 0
    ours = algorithm.Transition(*rows[:3], 1.0 - terminated, rows[3])
    theirs = example.Transition(*rows[:3], terminated, rows[3])
    parts["hyperparameters"] = ddpg_jax.make_hyperparameters(config)
    update = jax.jit(example.update)
    for number in range(3):
        actor, critic = update(actor, critic, theirs)
        state, _ = algorithm.update(jax.random.key(number), state, ours, **parts)
    found = [in_package_form(params, "hidden") for params in (actor.params, actor.target_params)]
    found += [in_package_form(params, "trunk") for params in (critic.params, critic.target_params)]
    expected = [state.actor, state.target_actor, state.critic, state.target_critic]
    chex.assert_trees_all_close(found, expected, atol=1e-6, rtol=0)


def test_the_last_transition_of_an_episode_is_stored_before_the_reset(example):
    """Pendulum's episodes have 200 steps; row 199 is the last of the first episode."""
    env, _ = gymnax.make("Pendulum-v1")
    steps = jnp.arange(example.CHUNK)  # the length for which the next test needs the same program
    state, (_, ends) = example.train(jax.random.key(1), example.init(jax.random.key(0), env), steps, env)
    assert np.flatnonzero(ends).tolist() == [199, 399, 599, 799, 999]
    replay = jax.tree.map(lambda rows: np.asarray(rows[: example.CHUNK]), state[2])
    same = np.all(replay.next_observation[:-1] == replay.observation[1:], axis=1)
    assert np.flatnonzero(~same).tolist() == [199, 399, 599, 799]
    # One step turns the pendulum by at most 8 rad/s times 0.05 s.
    angle, after = (np.arctan2(x[:, 1], x[:, 0]) for x in (replay.observation, replay.next_observation))
    assert np.abs((after - angle + np.pi) % (2 * np.pi) - np.pi).max() < 0.4 + 1e-3
    assert not replay.terminated.any()


def test_learns_pendulum_and_shows_its_learning_curve(example, tmp_path, monkeypatch, capsys):
    """The optimum is about -137; an agent that does nothing gets about -1,200."""
    monkeypatch.chdir(tmp_path)
    curve = example.main(num_steps=5_000, seed=11)
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [f"step {step:6,}" for step in curve]
    assert list(curve) == [*range(200, 5_001, 200)]
    assert np.mean(list(curve.values())[-10:]) > -400
    assert (tmp_path / "learning_curve.png").stat().st_size > 1_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 16))
def test_learns_pendulum_with_every_seed(example, tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    assert np.mean(list(example.main(seed=seed).values())[-20:]) > -450  # with exploration noise


@pytest.mark.slow
def test_learns_where_an_episode_can_end_in_a_terminal_state(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert np.mean(list(example.main(env_id="MountainCarContinuous-v0").values())[-10:]) > 85
