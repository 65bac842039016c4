"""Tests `python -m ddpg_jax.evaluate`: the task that was trained, and returns as independent programs compute them."""

import re

import gymcases
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import SMALL, train_small

from ddpg_jax import evaluate
from ddpg_jax.config import Config
from ddpg_jax.environments import registry
from ddpg_jax.training.policy import Policy
from ddpg_jax.training.setup_factory import make_algorithm

OWN = "gymnasium:gymcases:Counted-v0"
SPACES = {"Pendulum-v1": (3, 2.0), "MountainCarContinuous-v0": (2, 1.0)}


gymnasium.register("Endless-v0", entry_point=gymcases.Base)


def save(folder, num_agents=3, env_id="Pendulum-v1", *, fields=None, **changes) -> Policy:
    """Writes untrained policies into a folder, and returns them."""
    config = Config(env_id=env_id, hidden_sizes=(8,), **changes)
    size, bound = SPACES.get(env_id.removeprefix("gymnasium:"), (2, 1.0))
    actor = make_algorithm(config, (-bound,), (bound,)).actor
    keys = jax.random.split(jax.random.key(1), num_agents)
    variables = jax.vmap(lambda key: actor.init(key, jnp.zeros((1, size))))(keys)
    variables = jax.tree.map(lambda x: 30 * x, variables)  # so that the agents differ
    policy = Policy(env_id, size, actor, variables, config=config, **(fields or {}))
    policy.save(folder)
    return policy


def returns_of(capsys, *arguments) -> tuple[list[float], str]:
    """Runs the command; returns the mean, worst and best return that it prints, and all that it prints."""
    assert evaluate.main([str(argument) for argument in arguments]) == 0
    out = capsys.readouterr().out
    found = re.search(r"return: mean (\S+), IQM .*, worst agent (\S+), best agent (\S+)", out)
    return [float(number) for number in found.groups()], out


def refused(capsys, *arguments) -> str:
    """Returns the one line with which the command ends."""
    assert evaluate.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err[:7], err.count("\n")) == ("", "error: ", 1)
    return err


def pendulum_returns(policy, starts, *, gravity=10.0, repeat=1) -> np.ndarray:
    """Computes mean returns [N] of greedy episodes with the equations of Pendulum in Gymnasium's documentation."""
    angle, velocity = (np.array([np.asarray(getattr(starts.state, name), np.float64)] * len(policy))
                       for name in ("theta", "theta_dot"))  # fmt: skip
    total = np.zeros_like(angle)
    for _ in range(200 // repeat):
        torque = np.asarray(policy.each(np.stack([np.cos(angle), np.sin(angle), velocity], -1)), np.float64)[..., 0]
        for _ in range(repeat):
            wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
            total -= wrapped**2 + 0.1 * velocity**2 + 0.001 * torque**2
            velocity = np.clip(velocity + 0.05 * (1.5 * gravity * np.sin(angle) + 3 * torque), -8, 8)
            angle = angle + 0.05 * velocity
    return total.mean(axis=1)


def test_policies_run_in_the_task_that_they_were_trained_on(tmp_path, capsys):
    policy = save(tmp_path, env_args=("g=1.0",), action_repeat=4)
    found, out = returns_of(capsys, tmp_path, "--episodes", 6, "--seed", 3)
    expected = pendulum_returns(policy, registry.task_of(policy.config).starts_of(3, 6), gravity=1.0, repeat=4)
    np.testing.assert_allclose(found, [expected.mean(), expected.min(), expected.max()], rtol=0.02)
    assert "3 agents x 6 episodes in Pendulum-v1\n" in out
    assert "shortfall" not in out  # the optimum is that of another task


def test_policies_of_gymnaxs_pendulum_run_in_gymnasiums_from_the_starts_of_the_runs_evaluation(tmp_path, capsys):
    policy = save(tmp_path)
    found, out = returns_of(capsys, tmp_path, "--episodes", 6)
    task = registry.task_of(policy.config)
    expected = pendulum_returns(policy, task.evaluation_starts(6))
    np.testing.assert_allclose(found, [expected.mean(), expected.min(), expected.max()], rtol=0.02)
    assert "3 agents x 6 episodes in gymnasium:Pendulum-v1\n" in out
    shortfall = float(re.search(r"shortfall to the optimum: mean (\S+),", out).group(1))
    assert shortfall == pytest.approx(np.mean(task.optimal_returns[:6]) - found[0], abs=0.02)
    assert out.endswith("solved: 0 of 3 agents\n")


def test_compiled_environments_have_512_episodes_by_default(tmp_path, capsys):
    save(tmp_path, 1, "MountainCarContinuous-v0", env_args=("max_steps_in_episode=5",))
    assert "1 agents x 512 episodes in MountainCarContinuous-v0" in returns_of(capsys, tmp_path)[1]


def test_agents_of_all_shapes_are_evaluated_and_those_that_diverged_left_out_and_named(tmp_path, capsys):
    policy = save(tmp_path / "some/policy/shape-0", 2, OWN, fields={"agents": (6, 7)})
    lost = jax.tree.map(lambda x: x.at[np.array([0])].set(jnp.nan), policy.variables)
    fields = {"diverged_agents": (0,), "agents": (8, 9)}
    Policy(OWN, 2, policy.actor, lost, config=policy.config, **fields).save(tmp_path / "some/policy/shape-1")
    found, out = returns_of(capsys, tmp_path / "some", "--episodes", 2)
    assert found == [20.0, 20.0, 20.0]  # a reward of 1 in each of 20 steps
    assert f"3 agents x 2 episodes in {OWN}" in out
    assert "left out: agents 8, which diverged in training" in out
    save(tmp_path / "none", 2, OWN, fields={"diverged_agents": (0, 1)})
    assert "must have agents that have not diverged" in refused(capsys, tmp_path / "none")


def test_configurations_of_a_sweep_are_evaluated_apart(tmp_path, capsys):
    config = SMALL.replace(total_steps=60, eval_every=60)
    swept = train_small([config, config.replace(actor_lr=0.01)], seeds=range(2), out=tmp_path / "sweep")[0]
    assert evaluate.main([str(tmp_path / "sweep"), "--episodes", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("configuration ")] == [
        "configuration 0, actor_lr=0.001:", "configuration 1, actor_lr=0.01:"
    ]  # fmt: skip
    assert sum(line.startswith("2 agents x 4 episodes") for line in lines) == 2
    swept[1].save(tmp_path / "one")
    alone = returns_of(capsys, tmp_path / "one", "--episodes", 4)[1].splitlines()
    assert alone[:2] == lines[lines.index("configuration 1, actor_lr=0.01:") + 1 :][:2]


def test_a_run_that_was_stopped_is_evaluated(tmp_path, capsys):
    train_small(seeds=range(2), stop_after=2)[0].save(tmp_path / "stopped")
    assert "the run's own summary" not in returns_of(capsys, tmp_path / "stopped", "--episodes", 4)[1]


@pytest.mark.parametrize(("num_envs", "most"), [(1, 3), (4, 12)])
def test_no_more_environments_than_in_training_and_all_are_closed(tmp_path, capsys, num_envs, most):
    save(tmp_path, 3, OWN, num_envs=num_envs, total_steps=1000)
    gymcases.COUNT.update(made=0, open=0, most=0)
    found, out = returns_of(capsys, tmp_path)
    assert found == [20.0, 20.0, 20.0]
    assert f"3 agents x 32 episodes in {OWN}" in out
    # Making the task needs some more, one after another.
    assert gymcases.COUNT["open"] == 0
    assert gymcases.COUNT["most"] == most


def test_environment_that_fails_is_named_in_a_line(tmp_path, capsys, monkeypatch):
    save(tmp_path, 2, "gymnasium:gymcases:Raises-v0")
    monkeypatch.setenv("RAISES_AT", str(gymcases.COUNT["steps"] + 30))
    assert "gymcases:Raises-v0' raises RuntimeError: simulator lost" in refused(capsys, tmp_path, "--episodes", 4)


def test_environment_without_a_time_limit_is_evaluated_with_one_that_is_given(tmp_path, capsys):
    save(tmp_path, 1, OWN)
    words = ("--gymnasium", "Endless-v0", "--env-args", "max_episode_steps=7", "--episodes", 2)
    assert returns_of(capsys, tmp_path, *words)[0] == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gymnasium", "Nope-v0"], "env_id is 'gymnasium:Nope-v0', but must be"),
        (["--gymnasium", "Pendulum-v1"], "gymnasium is 'Pendulum-v1', with 3 observations and actions from (-2.0,)"),
        (["--env-args", "g=2"], "env_args is g=2, but must only be given with --gymnasium"),
        (["--gymnasium", "Endless-v0"], "must have a time limit: --env-args max_episode_steps=1000"),
    ],
)
def test_environments_that_cannot_be_used_are_refused_in_a_line(tmp_path, capsys, words, message):
    save(tmp_path, 1, OWN)
    assert message in refused(capsys, tmp_path, *words)


def test_folder_without_policies_is_refused(tmp_path, capsys):
    assert "must be the folder of a finished run" in refused(capsys, tmp_path)
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(tmp_path), "--episodes", "0"])
    assert "episodes is 0, but must be a whole number >= 1" in capsys.readouterr().err
