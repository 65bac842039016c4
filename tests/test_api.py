"""Tests the public face: what a notebook can do in a line."""

import numpy as np
import pytest
from small_runs import SMALL

import ddpg_jax


@pytest.fixture(scope="module")
def result():
    return ddpg_jax.train(SMALL, seeds=3, progress=False)


@pytest.fixture(scope="module")
def swept():
    return ddpg_jax.train([SMALL, SMALL.replace(tau=0.5)], seeds=3, progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "resume is True, but must be given with out"),
        ({"log": ["tensorboard"]}, "log is .*, but must be given with out"),
        ({"devices": 1000}, "devices is 1000, but only"),
    ],
)  # what is refused by the options' own checks is in `test_run.py`
def test_bad_argument_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        ddpg_jax.train(**({"config": SMALL} | arguments))


def test_numbers_of_numpy_are_numbers():
    config = SMALL.replace(total_steps=np.float64(60))
    result = ddpg_jax.train(config, seeds=np.int64(1), seed=np.uint8(3), progress=False)
    assert (result.seeds, result.seed) == (range(1), 3)


def test_reprs_are_a_line(result):
    for shown in (result, result.summary, result.policy, result.history, result.policy.best):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 200
    assert repr(result.policy) == "Policy(3 agents, Pendulum-v1, 3 -> 1)"


def test_result_is_saved_and_loaded(result, tmp_path):
    saved = result.save(tmp_path / "run")
    there = ddpg_jax.load(tmp_path / "run")
    assert saved.folder == there.folder == tmp_path / "run"
    np.testing.assert_array_equal(there.finals.final_return, result.finals.final_return)
    np.testing.assert_array_equal(there.policy(np.eye(3)), result.policy(np.eye(3)))
    assert there.summary.to_dict() == saved.summary.to_dict()
    assert there.details == ddpg_jax.load(tmp_path / "run").details
    assert there.details["command"] is None  # that of a notebook's kernel says nothing
    with pytest.raises(ValueError, match=f"out is {tmp_path / 'run'}, but must be a new or an empty folder"):
        result.save(tmp_path / "run")


def test_dataframe_has_a_row_per_agent_per_evaluation(result):
    frame = result.to_dataframe()
    assert len(frame) == 3 * 4
    assert set(frame.columns) >= {"agent", "env_steps", "eval_return", "critic_loss"}
    assert frame["eval_return"].tolist() == result.history.metrics.eval_return.ravel().tolist()


def test_configurations_share_their_seeds_are_compared_in_pairs_and_have_a_best_agent_each(result, swept):
    np.testing.assert_array_equal(swept[0].finals.final_return, result.finals.final_return)
    assert [dict(each.values) for each in swept.configs] == [{"tau": 0.01}, {"tau": 0.5}]
    assert [row.num_pairs for row in ddpg_jax.compare(swept).rows] == [0, 3]
    assert swept.plot()._repr_png_().startswith(b"\x89PNG")
    for config in (0, 1):
        assert swept[config].policy.best_agent == int(np.argmax(swept[config].finals.selection_return))
    assert result.policy.best_agent == swept[0].policy.best_agent


def test_network_of_the_user_trains_with_a_folder_and_resumes(tmp_path):
    import flax.linen as nn
    import jax.numpy as jnp

    class Linear(nn.Module):
        low: tuple
        high: tuple

        @nn.compact
        def __call__(self, observation, train=False):
            return jnp.clip(nn.Dense(1)(observation), -2.0, 2.0)

    setup = ddpg_jax.with_parts(ddpg_jax.make_setup(SMALL), actor=Linear((-2.0,), (2.0,)))
    folder = tmp_path / "run"
    short = ddpg_jax.train(SMALL.replace(total_steps=60), setup=setup, seeds=2, out=folder, progress=False)
    assert (folder / "report.html").exists()
    long = ddpg_jax.train(SMALL, setup=setup, seeds=2, out=folder, resume=True, progress=False)
    whole = ddpg_jax.train(SMALL, setup=setup, seeds=2, progress=False)
    np.testing.assert_array_equal(long.finals.final_return, whole.finals.final_return)
    assert short.history.env_steps == 60
    with pytest.raises(ValueError, match="actor="):
        _ = ddpg_jax.load(folder).policy
    policy = ddpg_jax.load_policy(folder, actor=setup.algorithm.actor)
    np.testing.assert_array_equal(policy(np.eye(3)), long.policy(np.eye(3)))


def test_compare_stays_a_function_when_the_command_of_its_name_has_been_imported(result):
    import ddpg_jax.compare

    assert len(ddpg_jax.compare(result).rows) == 1
