"""Tests of a whole run: what it measures, that it resumes in the same bits, and how it ends early."""

import dataclasses
import json
import math
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import SMALL, files, train_small

import ddpg_jax
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.environments.registry import make_task
from ddpg_jax.options import TrainOptions
from ddpg_jax.results.csv_files import metrics_csv
from ddpg_jax.sweep import as_swept
from ddpg_jax.training.host_trainer import make_trainer
from ddpg_jax.training.plan import make_plan
from ddpg_jax.training.run import evaluation_steps, snapshot_steps
from ddpg_jax.training.run_folder import RunFolder
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup
from ddpg_jax.training.trainer import agent_keys


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 200 steps, evaluated at 60, 120, 180 and 200."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    train_small(out=folder)
    return folder


def test_result_in_memory_is_that_of_the_folder(whole):
    result, _ = train_small()
    there = ddpg_jax.load(whole)
    np.testing.assert_array_equal(result.finals.final_return, there.finals.final_return)
    for here, other in zip(
        jax.tree.leaves(result.policy.variables), jax.tree.leaves(there.policy.variables), strict=True
    ):
        np.testing.assert_array_equal(here, other)
    assert result.history.evaluation_steps.tolist() == [60, 120, 180, 200]


def test_agent_of_a_seed_is_the_same_whichever_seeds_train_beside_it(whole):
    result, _ = train_small(seeds=range(2, 3))
    assert result.history.agents.tolist() == [2]
    there = ddpg_jax.load(whole)
    assert result.finals.final_return[0] == there.finals.final_return[2]
    rows = [line for line in (whole / "metrics.csv").read_text().splitlines() if line.startswith("2,")]
    assert metrics_csv(result.history, range(2, 3)).splitlines()[1:] == rows


def test_stopped_run_is_resumed_in_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    result, _ = train_small(out=folder, stop_after=2)
    assert not result.summary.complete
    assert not (folder / "summary.json").exists()
    _, printed = train_small(out=folder, resume=True)
    assert f"resuming {folder} at step" in printed
    assert files(folder) == files(whole)


def test_run_that_is_stopped_in_every_chunk_ends_in_the_same_bits(whole, tmp_path):
    """Chunks are shorter then: their lengths follow the pace of the machine, and must not matter."""
    folder, stops = tmp_path / "run", 1
    result, _ = train_small(out=folder, stop_after=1)
    while not result.summary.complete:
        result, _ = train_small(out=folder, stop_after=1, resume=True)
        stops += 1
    assert stops > 5
    assert files(folder) == files(whole)


def test_extended_run_is_the_uninterrupted_one(whole, tmp_path):
    """This holds even if the old end was evaluated although it is not a multiple of `eval_every`."""
    folder = tmp_path / "run"
    train_small(SMALL.replace(total_steps=130), out=folder)
    train_small(out=folder, resume=True)
    assert files(folder) == files(whole)
    assert json.loads((folder / "summary.json").read_text())["env_steps_per_agent"] == 200


def test_run_without_a_checkpoint_starts_at_its_beginning(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "summary.json").unlink()
    (folder / "metrics.csv").write_text("half a li")
    train_small(out=folder, resume=True)
    assert files(folder) == files(whole)


@pytest.mark.parametrize("name", ["metrics.csv", "summary.json"])
def test_finished_run_that_has_lost_a_file_is_finished_again_from_its_checkpoint(whole, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / name).unlink()
    _, printed = train_small(out=folder, resume=True)
    assert "at step 200" in printed
    assert files(folder) == files(whole)


def test_finished_run_has_nothing_left_to_do(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}
    result, printed = train_small(out=whole, resume=True)
    assert printed == f"{whole} is finished at 200 steps: there is nothing left to do\n"
    assert result.summary.complete
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_damaged_checkpoint_gives_way_to_the_one_before_with_a_note(whole, tmp_path):
    folder = tmp_path / "run"
    train_small(out=folder, stop_after=3, checkpoint_every=1e-9)
    _older, newest = sorted((folder / "checkpoints").iterdir())
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    _, printed = train_small(out=folder, resume=True)
    assert f"note: {newest} is damaged" in printed
    assert files(folder) == files(whole)
    assert not newest.exists()


def test_run_whose_checkpoints_are_all_damaged_is_refused(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="all of its checkpoints are damaged"):
        train_small(out=folder, resume=True)


@pytest.mark.parametrize(("change", "name"), [({"seed": 1}, "seed"), ({"seeds": range(4)}, "seeds")])
def test_other_run_is_not_resumed(whole, tmp_path, change, name):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    with pytest.raises(ValueError, match=f"{name} is .*, but must be .*, as in {folder}"):
        train_small(out=folder, resume=True, **change)


def test_shorter_run_is_not_resumed(whole):
    with pytest.raises(ValueError, match="total_steps is 60, but must be at least 200"):
        train_small(SMALL.replace(total_steps=60), out=whole, resume=True)


def test_sweep_over_sizes_cannot_be_extended_and_says_why(swept, tmp_path):
    configs, whole, _ = swept
    shutil.copytree(whole, tmp_path / "run")
    longer = [config.replace(total_steps=180) for config in configs]
    with pytest.raises(ValueError, match="total_steps is 180, but must be 120: the sweep has networks"):
        train_small(longer, seeds=range(2), out=tmp_path / "run", resume=True)


IN_USE = f"run is in use by process {os.getpid()}: wait for it or stop it"


def test_second_process_is_refused(tmp_path):
    folder = tmp_path / "run"
    train_small(out=folder, stop_after=1)
    with RunFolder(folder), pytest.raises(ValueError, match=IN_USE):
        train_small(out=folder, resume=True)


def test_run_with_numbers_of_the_callers_is_resumed_only_with_them(tmp_path):
    """`--resume` would go on with those of the configuration."""
    folder = tmp_path / "run"
    numbers = {"setup": make_setup(SMALL), "hyperparameters": with_critic_lrs(1e-3, 2e-3, 3e-3)}
    train_small(out=folder, stop_after=2, **numbers)
    with pytest.raises(ValueError, match="must be given the setup and hyperparameters that the run was started with"):
        train_small(out=folder, resume=True)
    train_small(out=folder, resume=True, **numbers)
    train_small(out=tmp_path / "whole", **numbers)
    assert files(folder) == files(tmp_path / "whole")


def test_folder_with_something_in_it_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match=f"out is {tmp_path}, but must be a new or an empty folder"):
        train_small(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# A sweep


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two learning rates in one program, and a second shape of networks."""
    folder = tmp_path_factory.mktemp("run") / "swept"
    configs = [SMALL.replace(total_steps=120), SMALL.replace(total_steps=120, actor_lr=0.01),
               SMALL.replace(total_steps=120, hidden_sizes=(9,))]  # fmt: skip
    return configs, folder, train_small(configs, seeds=range(2), out=folder)[0]


def test_agents_of_a_sweep_are_those_of_runs_of_their_own(swept):
    configs, _, result = swept
    for number, config in enumerate(configs):
        alone, _ = train_small(config, seeds=range(2))
        np.testing.assert_array_equal(result[number].finals.final_return, alone.finals.final_return)
        np.testing.assert_array_equal(result[number].history.metrics.eval_return, alone.history.metrics.eval_return)


def test_sweep_over_shapes_has_a_policy_for_each_configuration(swept):
    _, folder, result = swept
    with pytest.raises(ValueError, match="networks of 2 shapes"):
        _ = result.policy
    there = ddpg_jax.load(folder)
    for number in range(3):
        here, other = result[number].policy, there[number].policy
        assert here.num_agents == other.num_agents == 2
        np.testing.assert_array_equal(here(np.ones(3)), other(np.ones(3)))


def test_one_configuration_of_a_sweep_is_saved_like_a_run_of_its_own(swept, tmp_path):
    configs, _, result = swept
    for number, config in enumerate(configs):
        one, alone = result[number].save(tmp_path / str(number)), train_small(config, seeds=range(2))[0]
        loaded = ddpg_jax.load(tmp_path / str(number))
        assert (loaded.config, loaded.policy.config, len(loaded)) == (config, config, 1)
        assert loaded.history.agents.tolist() == list(loaded.policy.agents) == [0, 1]
        assert loaded.summary.best_agent == alone.summary.best_agent == one.policy.best.agents[0]
        np.testing.assert_array_equal(loaded.finals.final_return, alone.finals.final_return)
        np.testing.assert_array_equal(loaded.policy(np.ones(3)), alone.policy(np.ones(3)))
        (compared,) = ddpg_jax.compare(tmp_path / str(number)).runs
        assert compared.final.tolist() == alone.finals.final_return.tolist()


def test_stopped_sweep_is_resumed_in_the_same_bits(swept, tmp_path):
    configs, whole, _ = swept
    for num_chunks in (2, 8):  # in the first of two programs, and in the second
        folder = tmp_path / str(num_chunks)
        assert not train_small(configs, seeds=range(2), out=folder, stop_after=num_chunks)[0].summary.complete
        train_small(configs, seeds=range(2), out=folder, resume=True)
        assert files(folder) == files(whole)


def test_configurations_of_different_tasks_are_refused():
    with pytest.raises(ValueError, match="total_steps"):
        train_small([SMALL, SMALL.replace(total_steps=100)])


# Early ends


def test_callback_is_given_each_evaluation_and_can_end_training():
    seen = []

    def callback(history):
        seen.append(history.env_steps)
        return history.env_steps >= 120

    result, _ = train_small(callback=callback)
    assert seen == [60, 120]
    assert result.summary.complete
    assert result.summary.env_steps_per_agent == 120
    assert np.isfinite(result.finals.final_return).all()


def test_interrupted_training_gives_what_has_been_measured():
    result, _ = train_small(stop_after=5)
    assert not result.summary.complete
    assert result.history.evaluation_steps.tolist() in ([60], [60, 120])
    assert result.policy(np.ones(3)).shape == (3, 1)


# Divergence


def with_critic_lrs(*values):
    """Returns hyperparameters of agents that each have a critic_lr of their own."""
    return make_hyperparameters(SMALL)._replace(critic_lr=np.array(values, np.float32))


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A run of which one agent learns so fast that its numbers overflow at its first update, after 20 steps."""
    folder = tmp_path_factory.mktemp("run") / "diverged"
    task = make_task("Pendulum-v1")
    setup = make_setup(SMALL, task.environment)
    return folder, *train_small(out=folder, setup=setup, hyperparameters=with_critic_lrs(5e-3, 1e28, 5e-3))


def test_diverged_agent_is_named_and_left_out(diverged, whole):
    _, result, printed = diverged
    assert printed.count("agent 1 diverged at step 20: ") == 1
    assert result.summary.diverged == {1: 20}
    sound = ddpg_jax.load(whole)
    assert result.summary.final_return.mean == pytest.approx(sound.finals.final_return[[0, 2]].mean())


def test_other_agents_are_not_affected_in_a_single_bit(diverged, whole):
    folder, result, _ = diverged
    sound = ddpg_jax.load(whole)
    np.testing.assert_array_equal(result.finals.final_return[[0, 2]], sound.finals.final_return[[0, 2]])
    rows = [[line for line in (each / "metrics.csv").read_text().splitlines() if not line.startswith("1,")]
            for each in (folder, whole)]  # fmt: skip
    assert rows[0] == rows[1]


def poisoned(config, rewards: dict):
    """Returns a setup on Pendulum in which agents {agent: (step, value)} get a reward once, in their first episode."""
    whole = make_task("Pendulum-v1").environment
    keys = [jax.random.split(key, 3)[2] for key in agent_keys(0, np.asarray([*rewards]))]  # those of the first reset
    marks, (steps, values) = jax.random.key_data(jnp.stack(keys)), map(jnp.asarray, zip(*rewards.values(), strict=True))

    def reset(key):
        state, observation = whole.reset(key)
        return (state, jnp.all(jax.random.key_data(key) == marks, axis=1), jnp.int32(0)), observation

    def advance(key, state, action):
        inner, marked, time_step = state
        inner, result = whole.step(key, inner, action)
        now = marked & (steps == time_step + 1)
        reward = jnp.where(now.any(), values[jnp.argmax(now)], result.reward)
        return (inner, marked, time_step + 1), result._replace(reward=reward)

    return make_setup(config, dataclasses.replace(whole, reset=reset, step=advance, cacheable=False))


def test_agents_with_a_reward_that_is_not_finite_are_named_with_its_step_and_frozen():
    """Their returns show it before any loss can. From the next evaluation on, their parameters do not change."""
    config = SMALL.replace(learning_starts=100, total_steps=250, eval_every=50)
    setup = poisoned(config, {1: (3, math.inf), 2: (7, math.nan)})
    long, printed = train_small(config, setup=setup)
    short, _ = train_small(config.replace(total_steps=50), setup=setup)
    assert "agent 1 diverged at step 3: the environment gave the reward inf at step 3, after the action" in printed
    assert "agent 2 diverged at step 7: the environment gave the reward nan at step 7, after the action" in printed
    assert long.summary.diverged == {1: 3, 2: 7}
    pairs = list(zip(jax.tree.leaves(long.policy.variables), jax.tree.leaves(short.policy.variables), strict=True))
    for after, before in pairs:
        np.testing.assert_array_equal(after[1:], before[1:])
    assert any(not np.array_equal(after[0], before[0]) for after, before in pairs)


def test_run_of_which_all_agents_diverge_is_reported_nevertheless(tmp_path):
    setup = make_setup(SMALL, make_task("Pendulum-v1").environment)
    result, _ = train_small(out=tmp_path / "run", setup=setup, hyperparameters=with_critic_lrs(1e28, 1e28, 1e28))
    assert sorted(result.summary.diverged) == [0, 1, 2]
    assert math.isnan(result.summary.final_return.iqm)
    assert ddpg_jax.load(tmp_path / "run").policy.diverged_agents == (0, 1, 2)


# Schedules


def test_last_step_is_evaluated_once():
    assert evaluation_steps(SMALL) == [60, 120, 180, 200]
    assert evaluation_steps(SMALL.replace(total_steps=180)) == [60, 120, 180]


def test_snapshots_are_evenly_spaced_from_the_first_step_to_the_last():
    assert snapshot_steps(SMALL) == [0, 50, 100, 150, 200]
    assert snapshot_steps(SMALL.replace(total_steps=2)) == [0, 1, 2]


def test_setup_with_other_numbers_than_the_configuration_is_refused_by_name():
    setup = make_setup(SMALL.replace(batch_size=16))
    with pytest.raises(ValueError, match="batch_size of the setup is 16, but must be that of the configuration, 8"):
        train_small(setup=setup)


def test_hyperparameters_are_checked_as_a_configuration_checks_them():
    setup = make_setup(SMALL)
    with pytest.raises(ValueError, match=r"gamma is 1\.5, but must be a number in \[0, 1\]"):
        train_small(setup=setup, hyperparameters=make_hyperparameters(SMALL)._replace(gamma=1.5))
    with pytest.raises(ValueError, match=r"tau has shape \(2,\), but must be a number or \[3\]"):
        train_small(setup=setup, hyperparameters=make_hyperparameters(SMALL)._replace(tau=np.ones(2)))


def test_environment_that_was_changed_between_two_calls_is_trained_as_it_is_now():
    """Methods of one object are equal however its attributes have changed."""

    class Goal:
        place = 0.0

        def reset(self, key):
            return jnp.float32(0), jnp.zeros(1)

        def step(self, key, state, action):
            return state, ddpg_jax.Step(jnp.zeros(1), jnp.float32(self.place), jnp.bool_(False), jnp.bool_(False))

    goal = Goal()
    environment = Environment("goal", 1, (-1.0,), (1.0,), 10, goal.reset, goal.step)
    config = SMALL.replace(hidden_sizes=(), total_steps=60, max_episode_steps=10)  # which compiles fastest
    returns = []
    for goal.place in (1.0, 2.0):
        result, _ = train_small(config, setup=make_setup(config, environment), seeds=range(1))
        returns.append(result.finals.final_return[0])
    assert returns == [10.0, 20.0]


TASK = """
import jax.numpy as jnp
import ddpg_jax


def make(length=9):
    reset = lambda key: (jnp.int32(0), jnp.zeros(1))
    result = ddpg_jax.Step(jnp.ones(1), jnp.float32(1), jnp.bool_(False), jnp.bool_(False))
    step = lambda key, state, action: (state + 1, result)
    environment = ddpg_jax.Environment("own", 1, (-1.0,), (1.0,), length, reset, step)
    return ddpg_jax.Task(environment, optimal_returns=[7.0] * 16, solved_shortfall=1.0)
"""


def test_setup_of_a_users_task_keeps_what_the_task_knows(tmp_path, monkeypatch):
    """The function is called anew for each, and returns functions that are equal to none before."""
    (tmp_path / "task_of_a_user.py").write_text(TASK)
    monkeypatch.syspath_prepend(tmp_path)
    config = SMALL.replace(env_id="task_of_a_user:make", max_episode_steps=None)
    setup = ddpg_jax.make_setup(config)
    options = TrainOptions(swept=as_swept(config), preset="pendulum", seeds=range(2))
    task = make_plan(options, setup).task
    assert task.environment == setup.environment
    assert (task.optimal_returns, task.solved_shortfall) == ((7.0,) * 16, 1.0)
    shorter = make_task("task_of_a_user:make", ["length=8"]).environment  # of which it knows nothing
    assert make_plan(options, ddpg_jax.with_parts(setup, environment=shorter)).task.optimal_returns is None


def test_a_chunk_that_is_longer_than_its_log_is_refused():
    plan = make_plan(TrainOptions(swept=as_swept(SMALL), preset="pendulum", seeds=range(1)))
    (each,) = plan.setups
    trainer = make_trainer(each.setup, agent_keys(0, each.seeds), each.hyperparameters, placement=each.placement,
                           starts=plan.task.evaluation_starts(1))  # fmt: skip
    with pytest.raises(ValueError, match="num_steps is 251, but must be at most 250"):
        trainer.advance(251)
