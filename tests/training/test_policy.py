"""Tests policies: what they compute, how agents are chosen, and which files are refused."""

import json
import math
import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ddpg_jax import load_policy
from ddpg_jax.config import Config
from ddpg_jax.training.policy import Policy, policy_folders
from ddpg_jax.training.setup_factory import make_algorithm

CONFIG = Config(hidden_sizes=(8,))
OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


class Linear(nn.Module):
    """A network of the user's own, whose actions are not within the bounds."""

    low: tuple[float, ...] = (-2.0,)
    high: tuple[float, ...] = (2.0,)

    @nn.compact
    def __call__(self, observation, train=False):
        return 100 * nn.Dense(1)(observation)


def new_policy(num_agents=4, actor=None, bounds=((-2.0,), (2.0,)), **fields) -> Policy:
    actor = actor or make_algorithm(CONFIG, *bounds).actor
    keys = jax.random.split(jax.random.key(0), num_agents)
    variables = jax.vmap(lambda key: actor.init(key, jnp.zeros((1, 3))))(keys)
    return Policy(**{"env_id": "Pendulum-v1", "observation_size": 3, "actor": actor, "config": CONFIG} | fields,
                  variables=variables)  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    return new_policy(best_agent=2)


@pytest.fixture
def saved(policy, tmp_path):
    policy.save(tmp_path / "policy")
    return tmp_path


# Actions


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, np.ndarray.tolist, lambda x: x.astype(np.float64)])
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 2, 3)])
def test_actions_of_all_agents_for_one_or_many_observations_of_any_array_like(policy, convert, shape):
    observations = np.resize(OBSERVATIONS, shape)
    actions = policy(convert(observations))
    assert actions.shape == (4, *shape[:-1], 1)
    expected = [policy[i](observations.reshape(-1, 3))[0] for i in range(4)]
    np.testing.assert_allclose(actions, np.reshape(expected, actions.shape), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(policy.each(np.stack([observations] * 4)), actions, rtol=1e-5, atol=1e-8)


def test_policy_is_the_network_of_its_weights(saved, policy):
    weights = safetensors.numpy.load_file(saved / "policy/actors.safetensors")
    by_shape = {array.shape[1:]: array for array in weights.values()}
    for agent, actions in enumerate(policy(OBSERVATIONS)):
        hidden = np.maximum(0, OBSERVATIONS @ by_shape[3, 8][agent] + by_shape[8,][agent])
        last = hidden @ by_shape[8, 1][agent] + by_shape[1,][agent]
        np.testing.assert_allclose(actions, 2 * np.tanh(last), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("observations", [[1, 2], np.zeros((5, 2)), 3, "abc", [[1, 2, 3], [1]], {"a": 1}])
def test_observations_that_are_not_the_trained_ones_are_refused(policy, observations):
    with pytest.raises(ValueError, match=r"but must be (\[3\] or \[\.\.\., 3\]|numbers)"):
        policy(observations)
    with pytest.raises(ValueError, match=r"have shape \(3, 3\), but must be \[4, ..., 3\]"):
        policy.each(np.zeros((3, 3)))


def test_prediction_is_the_action_of_the_best_agent(policy):
    action = policy.predict(list(OBSERVATIONS[0]))
    assert isinstance(action, np.ndarray)
    assert (action.shape, action.dtype) == ((1,), np.float32)
    np.testing.assert_array_equal(action, policy.best(OBSERVATIONS[0])[0])
    assert policy[1].predict(OBSERVATIONS).shape == (5, 1)
    with pytest.raises(ValueError, match=r"names no best agent: .* Take one: policy\[0\]"):
        new_policy().predict(OBSERVATIONS[0])
    with pytest.raises(ValueError, match="agent 7 diverged in training"):
        new_policy(1, diverged_agents=(0,), agents=(7,)).predict(OBSERVATIONS[0])


def test_predicted_actions_are_inside_float64_bounds_that_float32_cannot_hold():
    policy = new_policy(1, Linear(low=(-0.1,), high=(0.1,)))
    actions = policy.predict(100 * OBSERVATIONS)
    assert (np.abs(actions) > 0.0999).any()
    assert (np.float64(np.abs(actions)) <= 0.1).all()
    assert np.float64(np.abs(policy(100 * OBSERVATIONS)).max()) > 0.1  # as float32, which training uses


# Choosing agents


@pytest.mark.parametrize(
    ("index", "agents"),
    [(-1, [3]), (slice(1, 3), [1, 2]), (np.argmax([0, 5, 1]), [1]), (np.array([3, 1]), [3, 1]), ([0, 2], [0, 2]),
     (np.array([True, False, False, True]), [0, 3])],
)  # fmt: skip
def test_agents_are_chosen_as_numpy_chooses_rows(policy, index, agents):
    chosen = policy[index]
    assert (len(chosen), list(chosen.agents)) == (len(agents), agents)
    np.testing.assert_allclose(chosen(OBSERVATIONS), policy(OBSERVATIONS)[np.array(agents)], rtol=1e-5, atol=1e-8)
    assert chosen.best_agent == (agents.index(2) if 2 in agents else None)


def test_chosen_agents_keep_what_is_known_of_them():
    assert repr(new_policy(1)) == "Policy(1 agent, Pendulum-v1, 3 -> 1)"
    policy = new_policy(diverged_agents=(0, 3), best_agent=1, agents=(20, 21, 22, 23))
    some = policy[[3, 1]]
    assert (some.agents, some.diverged_agents, some.best_agent) == ((23, 21), (0,), 1)
    assert policy.best.agents == (21,)
    assert [each.agents for each in policy] == [(20,), (21,), (22,), (23,)]


@pytest.mark.parametrize("agents", [4, [0, 4], [], "x"])
def test_agents_that_are_not_there_are_refused(policy, agents):
    with pytest.raises(IndexError):
        policy[agents]


# Files


def test_saved_policies_are_loaded_with_the_same_bits(saved, policy):
    policy.save(saved / "again")
    assert (saved / "again/policy.json").read_bytes() == (saved / "policy/policy.json").read_bytes()
    for loaded in (load_policy(saved), load_policy(str(saved / "policy")), pickle.loads(pickle.dumps(policy))):
        np.testing.assert_array_equal(loaded(OBSERVATIONS), policy(OBSERVATIONS))
        assert (loaded.env_id, loaded.config, loaded.best_agent) == ("Pendulum-v1", CONFIG, 2)


def test_agents_are_loaded_by_the_numbers_that_they_have_in_the_run(tmp_path):
    policy = new_policy(agents=(512, 513, 514, 515), best_agent=1, diverged_agents=(3,))
    policy.save(tmp_path)
    description = json.loads((tmp_path / "policy.json").read_text())
    assert (description["best_agent"], description["diverged_agents"]) == (513, [515])
    assert load_policy(tmp_path).diverged_agents == (3,)
    assert load_policy(tmp_path, "best").agents == load_policy(tmp_path, np.int64(513)).agents == (513,)
    assert load_policy(tmp_path, [514, 512]).agents == (514, 512)
    assert "agents is 3, but must be numbers of 512 to 515" in refused(tmp_path, agents=3)
    assert "agents is 'worst', but must be all, best or the numbers of agents" in refused(tmp_path, agents="worst")


def test_network_of_the_users_own_is_loaded_with_it(tmp_path):
    policy = new_policy(2, Linear())
    policy.save(tmp_path)
    assert "load_policy(folder, actor=...)" in refused(tmp_path)
    loaded = load_policy(tmp_path, actor=Linear())
    np.testing.assert_array_equal(loaded(100 * OBSERVATIONS), policy(100 * OBSERVATIONS))
    assert np.max(np.abs(loaded(100 * OBSERVATIONS))) == 2  # as in evaluations
    assert "but must be" in refused(tmp_path, actor=make_algorithm(CONFIG, (-2.0,), (2.0,)).actor)
    new_policy(2, Linear(), config=None).save(tmp_path / "none")
    assert load_policy(tmp_path / "none", actor=Linear()).config is None


def test_networks_of_several_shapes_are_named(policy, tmp_path):
    for shape in ("shape-0", "shape-1"):
        policy.save(tmp_path / "policy" / shape)
    for folder in (tmp_path, tmp_path / "policy"):
        assert f"2 shapes: load one of {tmp_path}/policy/shape-0, {tmp_path}/policy/shape-1" in refused(folder)
    assert len(load_policy(tmp_path / "policy/shape-1")) == 4
    assert policy_folders(tmp_path) == [tmp_path / "policy/shape-0", tmp_path / "policy/shape-1"]


def refused(folder, **options) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the callers look at the message)
        load_policy(folder, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def edit(folder, **changes):
    file = folder / "policy/policy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_policy_that_is_missing_or_newer_is_refused(saved, tmp_path):
    edit(saved, format=2)
    assert "format is 2, newer than 1: update ddpg_jax" in refused(saved)
    edit(saved, format=1)
    assert "but must be the folder of a finished run" in refused(tmp_path / "nowhere")
    (saved / "policy/actors.safetensors").unlink()
    assert "actors.safetensors is missing" in refused(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"config": []}, {"config": {"env_idd": 3}}, {"low": []}, {"low": ["x"]}, {"high": [math.nan]}, {"high": [1, 2]},
        {"observation_size": 0}, {"observation_size": 10**30}, {"format": "1"}, {"diverged_agents": ["x"]},
        {"agents": [0, 1]}, {"agents": None}, {"best_agent": 9}, {"network": "other"},
    ],
)  # fmt: skip
def test_damaged_description_is_refused(saved, change):
    edit(saved, **change)
    assert f"{saved / 'policy'}" in refused(saved)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": 1}', "[" * 100_000, "\x00\xff"])
def test_file_that_is_not_a_description_is_refused(saved, text):
    (saved / "policy/policy.json").write_text(text, encoding="latin-1")
    assert "policy.json cannot be read" in refused(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda name, array: {name: array[..., :-1]},
        lambda name, array: {name: array[:-1]},
        lambda name, array: {name: array.astype(np.float64)},
        lambda name, array: {"params": array},
        lambda name, array: {name: None},
    ],
    ids=["cut", "an agent less", "float64", "more", "missing"],
)
def test_weights_of_another_network_are_refused(saved, change):
    file = saved / "policy/actors.safetensors"
    weights = safetensors.numpy.load_file(file)
    weights |= change(min(weights), weights[min(weights)])
    weights = {name: np.ascontiguousarray(array) for name, array in weights.items() if array is not None}
    safetensors.numpy.save_file(weights, file)
    assert f"{file}: weights " in refused(saved)


def test_weights_that_are_not_finite_are_refused_unless_the_agent_is_known_to_have_diverged(saved):
    file = saved / "policy/actors.safetensors"
    weights = dict(safetensors.numpy.load_file(file))
    weights[min(weights)][1] = math.inf
    safetensors.numpy.save_file(weights, file)
    assert "are not finite in agents [1]" in refused(saved)
    edit(saved, diverged_agents=[1])
    assert load_policy(saved).diverged_agents == (1,)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_truncated_weights_are_refused(saved, size):
    file = saved / "policy/actors.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert "is damaged" in refused(saved)
