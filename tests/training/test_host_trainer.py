"""Tests agents whose environments step on the host, in Gymnasium's Pendulum."""

import jax
import numpy as np
import pytest
from small_runs import SMALL, train_small

from ddpg_jax.environments.registry import task_of
from ddpg_jax.training.host_trainer import HostTrainer
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup
from ddpg_jax.training.trainer import agent_keys

gymnasium = pytest.importorskip("gymnasium")

CONFIG = SMALL.replace(env_id="gymnasium:Pendulum-v1", eval_episodes=4, final_episodes=4, total_steps=60,
                       max_episode_steps=11)  # fmt: skip


def trainer_of(num_agents: int) -> HostTrainer:
    task = task_of(CONFIG)
    values = jax.tree.map(lambda x: np.full(num_agents, x, np.float32), make_hyperparameters(CONFIG))
    keys = agent_keys(0, np.arange(num_agents))
    return HostTrainer(make_setup(CONFIG, task.environment), keys, values, starts=task.evaluation_starts(4))


@pytest.fixture(scope="module")
def three():
    trainer = trainer_of(3)
    logs = [trainer.advance(num) for num in (1, 19, 20)]
    yield trainer, [np.concatenate(field, axis=1) for field in zip(*logs, strict=True)]
    trainer.close()


def test_stored_transitions_are_those_of_an_environment_of_gymnasium(three):
    """Also those at a time limit: the next observation is the one before the reset."""
    trainer, _ = three
    for agent in range(3):
        stored = trainer.transitions(agent, 0, 40)
        _key, _, reset_key = jax.random.split(agent_keys(0, np.arange(3))[agent], 3)
        env = gymnasium.make("Pendulum-v1", max_episode_steps=11)
        observation, _ = env.reset(seed=int(jax.random.bits(reset_key, (), np.uint32)))
        for step in range(40):
            np.testing.assert_array_equal(stored.observation[step], observation)
            observation, reward, _, truncated, _ = env.step(stored.action[step])
            np.testing.assert_array_equal(stored.next_observation[step], observation)
            assert stored.reward[step] == np.float32(reward)
            assert stored.discount[step] == 1
            assert truncated == (step % 11 == 10)
            if truncated:
                observation, _ = env.reset()
        env.close()


def test_agents_do_not_depend_on_their_number_nor_on_the_lengths_of_chunks(three):
    _, logs = three
    other = trainer_of(6)
    for here, there in zip(other.advance(40), logs, strict=True):
        np.testing.assert_array_equal(here[:3], there)
    other.close()


def test_evaluation_begins_in_the_same_states_for_all_agents(three):
    trainer, _ = three
    task = task_of(CONFIG)
    returns = trainer.evaluate(task.evaluation_starts(4)).returns
    assert returns.shape == (3, 4)
    some = trainer.evaluate(task.evaluation_starts(2)).returns
    np.testing.assert_array_equal(some, returns[:, :2])


def test_stopped_run_continues_in_new_episodes(tmp_path):
    result, _ = train_small(CONFIG, out=tmp_path / "run", stop_after=1)
    assert not result.summary.complete
    resumed, printed = train_small(CONFIG, out=tmp_path / "run", resume=True)
    assert "begins new episodes" in printed
    assert resumed.summary.complete
    assert resumed.history.env_steps == 60
