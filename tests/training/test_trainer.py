"""Tests many agents on two host devices: bits do not depend on their number, agents differ, replays are not copied.

The number of devices is fixed once JAX has started, so another process makes all runs (`measure`).
"""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import replay_copies
from toy_environments import follow, small_config

from ddpg_jax.algorithm import replay
from ddpg_jax.algorithm.types import Replay, Transition
from ddpg_jax.environments.task import Task
from ddpg_jax.training.programs import Placement, choose_placement
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup
from ddpg_jax.training.trainer import Trainer, agent_keys

CAPACITY = 7919  # a number that no other array's size is
CONFIG = small_config(replay_capacity=CAPACITY, batch_size=4, learning_starts=5, noise_sigma=0.5, actor_lr=0.01)
CHUNKS = (7, 3, 20)
SEED = 7


# In the other process


def starts():
    return Task(follow()).evaluation_starts(3)


def run_agents(placement, agents: list[int], *, programs=None, **hyperparameters) -> tuple[Trainer, list]:
    """A trainer of the named agents after all chunks, and its log entries [6, N, steps] and returns [N, S]."""
    keys = agent_keys(SEED, np.asarray(agents))
    values = jax.tree.map(lambda x: np.full(len(agents), x, np.float32), make_hyperparameters(CONFIG))
    values = values._replace(**{name: np.asarray(value, np.float32) for name, value in hyperparameters.items()})
    setup = make_setup(CONFIG, follow())
    trainer = Trainer(setup, keys, values, starts=starts(), placement=placement, programs=programs)
    logs = np.concatenate([np.stack(trainer.advance(length)) for length in CHUNKS], axis=2)
    return trainer, [logs, trainer.evaluate(starts()).returns]


def summed_over_devices() -> str:
    """Returns the text of a program in which devices do communicate."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("agents",))
    total = jax.shard_map(lambda x: jax.lax.psum(x, "agents"), mesh=mesh, in_specs=jax.P("agents"), out_specs=jax.P())
    return jax.jit(total).lower(jnp.ones(4)).compile().as_text()


def restored(trainer: Trainer) -> bool:
    """Returns whether other agents go on in the same bits from what a trainer saves."""
    saved = {array.name: [*array.pieces] for array in trainer.saved_arrays()}
    other, _ = run_agents(trainer.programs.placement, [9, 8, 7], programs=trainer.programs)

    def read(name, rows):
        return saved[name][0] if rows is None else np.concatenate(saved[name])[rows]

    other.restore(read)
    logs = [np.stack(each.advance(5)) for each in (trainer, other)]
    returns = [each.evaluate(starts()).returns for each in (trainer, other)]
    return bool((logs[0] == logs[1]).all() and (returns[0] == returns[1]).all())


def measure() -> None:
    """Trains agents and prints the results."""
    jax.config.update("jax_num_cpu_devices", 2)  # raises if importing the package has started JAX
    pairs, alone, singles = (Placement(tuple(jax.devices()[:num]), size) for num, size in ((2, 2), (1, 1), (2, 1)))
    results, called, programs = {}, [], None
    one, single = run_agents(singles, [0])
    for num in (1, 3, 4, 5, 8):
        agents, results[num] = run_agents(pairs, list(range(num)), programs=programs)
        programs = agents.programs
        if num == 3:
            same = restored(agents)
        if num == 5:
            agents.advance(2, on_progress=called.append)
    held = agents.variables(lambda state: state.actor["params"]["hidden"]["Dense_0"])
    rows = {array.name: array for array in one.saved_arrays()}[".replay.rows"]
    all_alone, alone_results = run_agents(alone, [0, 1])
    report = {
        "results": results,
        "alone": alone_results,
        "single": single,
        "three singles": run_agents(singles, [0, 1, 2], programs=one.programs)[1],
        "written rows": list(rows.shape),
        "restored": same,
        "later": run_agents(pairs, [6, 7], programs=programs)[1],
        "swept": run_agents(pairs, [0, 1, 2, 3], programs=programs, actor_lr=[0.01, 0.1, 0.01, 0.01])[1],
        "called": called,
        "summed": summed_over_devices(),
        "kernels": held["kernel"],
        "transitions": [agents.transitions(agent, 2, 30)._asdict() for agent in range(8)],
        "programs": {
            name: {
                "texts": {each: getattr(programs, each).as_text() for each in ("train", "evaluate", "init")},
                "temporary": programs.train.memory_analysis().temp_size_in_bytes,
                "aliased": programs.train.memory_analysis().alias_size_in_bytes,
            }
            for name, programs in (("pairs", agents.programs), ("alone", all_alone.programs))
        },
    }
    print(json.dumps(report, default=lambda array: np.asarray(array).tolist()))


@pytest.fixture(scope="module")
def report() -> dict:
    here = Path(__file__).parent
    folders = [here, here.parent, here.parent.parent / "benchmarks"]
    paths = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import test_trainer; test_trainer.measure()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def logs_and_returns(result) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(result[0]), np.asarray(result[1])


# Agents do not depend on their number


@pytest.mark.parametrize("num", [1, 3, 4, 5])
def test_agents_are_equal_to_the_bit_for_any_number_of_them(report, num):
    logs, returns = logs_and_returns(report["results"][str(num)])
    all_logs, all_returns = logs_and_returns(report["results"]["8"])
    assert logs.shape == (6, num, sum(CHUNKS))  # the agents that fill a block up are thrown away
    assert returns.shape == (num, 3)
    np.testing.assert_array_equal(logs, all_logs[:, :num])
    np.testing.assert_array_equal(returns, all_returns[:num])


def test_agents_are_equal_to_the_bit_wherever_they_stand_in_a_block(report):
    logs, returns = logs_and_returns(report["later"])
    all_logs, all_returns = logs_and_returns(report["results"]["8"])
    np.testing.assert_array_equal(logs, all_logs[:, 6:])
    np.testing.assert_array_equal(returns, all_returns[6:])


def test_agents_on_their_own_are_equal_to_the_bit_for_any_number_of_them(report):
    logs, returns = logs_and_returns(report["single"])
    all_logs, all_returns = logs_and_returns(report["three singles"])
    np.testing.assert_array_equal(logs, all_logs[:, :1])
    np.testing.assert_array_equal(returns, all_returns[:1])


def test_group_and_single_agents_agree(report):
    logs, returns = logs_and_returns(report["alone"])
    group_logs, group_returns = logs_and_returns(report["results"]["8"])
    assert np.abs(logs[0, :, 5:]).min() > 0  # after 26 updates of each
    np.testing.assert_allclose(logs, group_logs[:, :2], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(returns, group_returns[:2], rtol=1e-3, atol=1e-5)


def test_agents_differ_from_one_another(report):
    kernels, (_, returns) = np.asarray(report["kernels"]), logs_and_returns(report["results"]["8"])
    observations, actions = (
        np.asarray([transitions[name] for transitions in report["transitions"]]) for name in ("observation", "action")
    )
    for one in range(8):
        for two in range(one):
            assert (kernels[one] != kernels[two]).all()
            assert (actions[one] != actions[two]).mean() > 0.9  # some are clipped to the same bound
            assert (observations[one] != observations[two]).all()
            assert (returns[one] != returns[two]).all()


def test_transitions_of_an_agent_are_those_of_its_steps(report):
    logs, _ = logs_and_returns(report["results"]["8"])
    for agent, transitions in enumerate(report["transitions"]):
        rewards = transitions["reward"]  # of the steps 3 to 30, one an episode
        np.testing.assert_array_equal(rewards, logs[5, agent, 2:30])
        place, action = np.asarray(transitions["observation"]), np.asarray(transitions["action"])
        np.testing.assert_allclose(rewards, -np.sum((action - place * [0.5, -1]) ** 2, axis=1), atol=1e-5)


def test_each_agent_has_hyperparameters_of_its_own(report):
    logs, _ = logs_and_returns(report["results"]["4"])
    swept, _ = logs_and_returns(report["swept"])
    np.testing.assert_array_equal(swept[:, [0, 2, 3]], logs[:, [0, 2, 3]])
    assert (swept[1, 1, 6:] != logs[1, 1, 6:]).all()


def test_agents_continue_in_the_same_bits_from_what_was_saved(report):
    assert report["restored"]
    assert report["written rows"] == [1, sum(CHUNKS), 2 * 1 + 2 + 2]  # of the replay only what has been written


def test_progress_is_told_block_by_block(report):
    assert report["called"] == [2 * 4, 2 * 1]  # two steps of a block of four agents, and of the fifth agent


# What a step copies


@pytest.mark.parametrize(("name", "agents_on_a_device"), [("pairs", 2), ("alone", 1)])
def test_replay_is_never_copied_in_a_step(report, name, agents_on_a_device):
    program = report["programs"][name]
    size = 4 * agents_on_a_device * CAPACITY * 6
    assert replay_copies(program["texts"]["train"], CAPACITY, in_loops=True) == []
    assert program["temporary"] < size / 4  # no room for a second replay
    assert program["aliased"] >= size  # the state is donated: the new replay lies where the old one did


COMMUNICATION = re.compile(r"\b(all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+|send|recv)(-start)?\(")


@pytest.mark.parametrize("name", ["train", "evaluate", "init"])
def test_programs_contain_no_communication_between_devices(report, name):
    assert COMMUNICATION.findall(report["programs"]["pairs"]["texts"][name]) == []


def test_communication_between_devices_is_noticed(report):
    assert COMMUNICATION.findall(report["summed"]) != []


def step_by_step(step) -> jax.stages.Compiled:
    """Compiles a loop of steps on the replays of two agents."""
    ring = Replay(jnp.zeros((2, CAPACITY, 6)), jnp.int32(0))

    @partial(jax.jit, donate_argnums=0)
    def run(ring):
        return jax.lax.fori_loop(0, 10, lambda i, ring: step(i, ring), ring)

    return run.lower(ring).compile()


TRANSITION = Transition(np.ones((2, 1)), np.ones((2, 2)), np.ones(2), np.ones(2), np.ones((2, 1)))
AXES = Replay(rows=0, added=None)


def _good(i, ring):
    return jax.vmap(replay.add, (AXES, 0), AXES)(ring, TRANSITION)


def _conditional(i, ring):
    """If each agent decides for itself whether it stores, the condition becomes a choice between two whole replays."""

    def one(ring, transition):
        return jax.lax.cond(transition.reward > i, lambda: replay.add(ring, transition).rows, lambda: ring.rows)

    return Replay(jax.vmap(one, (AXES, 0))(ring, TRANSITION), ring.added + 1)


def test_a_step_that_copies_the_replay_is_noticed():
    good, bad = step_by_step(_good), step_by_step(_conditional)
    assert replay_copies(good.as_text(), CAPACITY, in_loops=True) == []
    assert good.memory_analysis().temp_size_in_bytes < CAPACITY
    assert replay_copies(bad.as_text(), CAPACITY, in_loops=True) != []


# Keys and placement, which need no devices


def test_agents_key_is_the_root_key_with_its_number_folded_in():
    keys = agent_keys(SEED, np.asarray([0, 5, 2]))
    for key, number in zip(keys, (0, 5, 2), strict=True):
        expected = jax.random.fold_in(jax.random.key(SEED), number)
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))


class Core:
    """A device of which only the platform and the number matter."""

    def __init__(self, number, platform="cpu"):
        self.id, self.platform = number, platform


@pytest.mark.parametrize(
    ("num_agents", "flags", "ids"),
    [
        (1, {}, [0, 1]),  # the second is idle; a program for one device rounds some reports differently
        (3, {}, [0, 1, 2]),
        (9, {}, [0, 1, 2, 3]),
        (1, {"devices": 3}, [0, 1, 2]),
        (1, {"on_host": True}, [0]),
        (2, {"on_host": True}, [0, 1, 2, 3]),
        (2, {"group_size": 2}, [0, 1, 2, 3]),  # here the bits depend on the number of devices
    ],
)
def test_a_cpu_uses_no_more_cores_than_there_are_agents(monkeypatch, num_agents, flags, ids):
    monkeypatch.setattr(jax, "devices", lambda: [Core(i) for i in range(4)])
    assert [core.id for core in choose_placement(num_agents, **flags).devices] == ids


@pytest.mark.parametrize(
    ("platform", "num_agents", "on_host", "size"),
    [("cpu", 1, False, 1), ("cpu", 1_000, False, 1), ("cpu", 1, True, 1), ("cpu", 2, True, 4), ("gpu", 1, False, 32),
     ("gpu", 32, False, 32), ("gpu", 33, False, 256), ("tpu", 10_000, False, 256)],
)  # fmt: skip
def test_groups_are_of_one_on_a_cpu_and_of_a_few_sizes_elsewhere(monkeypatch, platform, num_agents, on_host, size):
    monkeypatch.setattr(jax, "devices", lambda: [Core(0, platform)])
    assert choose_placement(num_agents, on_host=on_host).group_size == size


def test_blocks_hold_a_group_on_every_device():
    placement = Placement(tuple(jax.devices()[:1]) * 3, 4)
    assert placement.block_size == 12
    assert [placement.num_blocks(num) for num in (1, 12, 13, 24, 25)] == [1, 1, 2, 2, 3]
