import json
import math
import shutil

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from command import main

from ddpg_jax import load_policy
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.runs.policy import load_weights, save_policy, save_weights

NUM_AGENTS = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "run"
    assert main("--out", folder, "--seeds", NUM_AGENTS).status == 0
    return folder


@pytest.fixture
def run_folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_actions_have_the_shape_of_agents_batch_and_action_from_numpy_and_from_jax(finished):
    policy = load_policy(finished)
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    from_numpy, from_jax = policy(observations), policy(jnp.asarray(observations))
    assert from_numpy.shape == (NUM_AGENTS, 5, 1)
    np.testing.assert_array_equal(from_numpy, from_jax)
    np.testing.assert_array_equal(from_numpy, load_policy(str(finished / "policy"))(observations))
    assert np.all(np.abs(from_numpy) <= 2)
    assert (policy.num_agents, policy.env_id, policy.diverged_agents) == (NUM_AGENTS, "Pendulum-v1", ())


def test_policy_is_the_network_of_its_weights(finished):
    weights = safetensors.numpy.load_file(finished / "policy/agents-000000.safetensors")
    layers = sorted({name.rpartition("/")[0] for name in weights})
    hidden, final = (layer for layer in layers if weights[f"{layer}/kernel"].shape[1:] in ((3, 8), (8, 1)))
    if weights[f"{hidden}/kernel"].shape[1:] != (3, 8):
        hidden, final = final, hidden
    observations = np.random.default_rng(1).normal(size=(4, 3))
    for agent, actions in enumerate(load_policy(finished)(observations)):
        middle = np.maximum(0, observations @ weights[f"{hidden}/kernel"][agent] + weights[f"{hidden}/bias"][agent])
        last = middle @ weights[f"{final}/kernel"][agent] + weights[f"{final}/bias"][agent]
        np.testing.assert_allclose(actions, 2 * np.tanh(last), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (5, 2), (2, 5, 3), ()])
def test_observations_of_another_shape_are_refused(finished, shape):
    with pytest.raises(ValueError, match=r"but must be \[B, 3\]"):
        load_policy(finished)(np.zeros(shape))


def test_policies_score_in_gymnasium_what_the_summary_says(finished):
    starts = _pendulum_starts()
    policy = load_policy(finished)
    summary = json.loads((finished / "summary.json").read_text())
    scores = _gymnasium_returns(policy, *starts).mean(axis=1)
    # A float32 of this size is 1e-4 apart from the next; 200 steps of a pendulum magnify that a little.
    np.testing.assert_allclose(scores, summary["per_agent_final_return"], rtol=2e-4)


def _pendulum_starts():
    state, _ = make("Pendulum-v1").evaluation_starts(512)
    return np.asarray(state.theta, np.float64), np.asarray(state.theta_dot, np.float64)


def _gymnasium_returns(policy, theta, theta_dot):
    """Computes the returns [N, S] of greedy episodes in Gymnasium's own Pendulum-v1, all of them side by side."""
    environment = gymnasium.make("Pendulum-v1").unwrapped
    environment.reset(seed=0)
    states = np.broadcast_to(np.stack([theta, theta_dot], -1), (policy.num_agents, len(theta), 2)).copy()
    returns = np.zeros(states.shape[:2])
    for _ in range(200):
        cos, sin = np.cos(states[..., 0]), np.sin(states[..., 0])
        actions = np.asarray(policy.each(np.stack([cos, sin, states[..., 1]], -1).astype(np.float32)))
        for index in np.ndindex(returns.shape):
            environment.state = states[index]
            _, reward, *_ = environment.step(actions[index])
            returns[index] += reward
            states[index] = environment.state
    return returns


def _edit(run_folder, **changes):
    file = run_folder / "policy/policy.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(content))


def _reweigh(run_folder, change):
    file = run_folder / "policy/agents-000000.safetensors"
    weights = dict(safetensors.numpy.load_file(file))
    change(weights)
    safetensors.numpy.save_file(weights, file)


def _refused(folder) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the callers look at the message)
        load_policy(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_policy_of_a_newer_format_is_refused(run_folder):
    _edit(run_folder, format=2)
    assert "format is 2, newer than 1" in _refused(run_folder)


def test_missing_policy_is_refused(run_folder, tmp_path):
    assert "is it a finished run?" in _refused(tmp_path)
    (run_folder / "policy/agents-000000.safetensors").unlink()
    assert "has no weights" in _refused(run_folder)


@pytest.mark.parametrize(
    "change",
    [
        {"config": []}, {"config": {"env_idd": 3}}, {"config": {"hidden_sizes": "x"}}, {"low": 3}, {"low": []},
        {"low": ["x"]}, {"high": [None]}, {"high": [math.nan]}, {"high": [1, 2]}, {"observation_size": 0},
        {"observation_size": "many"}, {"observation_size": 10**9}, {"observation_size": 10**30}, {"format": "1"},
        {"diverged_agents": 3}, {"diverged_agents": ["x"]}, {"num_agents": 4}, {"num_agents": None},
    ],
)  # fmt: skip
def test_damaged_description_is_refused(run_folder, change):
    _edit(run_folder, **change)
    assert "policy" in _refused(run_folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', '{"format": 1}', "[" * 100_000, "\x00\xff"])
def test_description_that_is_none_is_refused(run_folder, text):
    (run_folder / "policy/policy.json").write_text(text, encoding="latin-1")
    assert "policy.json cannot be read" in _refused(run_folder)


def _first(weights):
    return sorted(weights)[0]


def _cut(weights):
    weights[_first(weights)] = weights[_first(weights)][..., :-1]


def _lose_agent(weights):
    for name in weights:
        weights[name] = weights[name][:-1]


def _halve_agents_of_one(weights):
    weights[_first(weights)] = weights[_first(weights)][:-1]


def _flatten_one(weights):
    weights[_first(weights)] = np.array(3, np.float32)


def _drop(weights):
    del weights[_first(weights)]


def _add(weights):
    weights["params/more"] = np.zeros(NUM_AGENTS, np.float32)


def _collide(weights):
    weights["params"] = np.zeros(NUM_AGENTS, np.float32)


def _double(weights):
    weights[_first(weights)] = weights[_first(weights)].astype(np.float64)


def _empty(weights):
    weights.clear()


@pytest.mark.parametrize(
    "change", [_cut, _lose_agent, _halve_agents_of_one, _flatten_one, _drop, _add, _collide, _double, _empty]
)
def test_weights_that_are_not_the_networks_are_refused(run_folder, change):
    _reweigh(run_folder, change)
    assert "policy" in _refused(run_folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_with_the_agent_unless_it_is_known_to_have_diverged(run_folder, value):
    def spoil(weights):
        weights[_first(weights)][1] = value

    _reweigh(run_folder, spoil)
    assert "are not finite in agents [1]" in _refused(run_folder)
    _edit(run_folder, diverged_agents=[1])
    assert load_policy(run_folder).diverged_agents == (1,)


@pytest.mark.parametrize("size", [0, 5, 8, 100, -1])
def test_truncated_weights_are_refused(run_folder, size):
    file = run_folder / "policy/agents-000000.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert "damaged" in _refused(run_folder)


def test_pickled_weights_are_not_read(run_folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with open(run_folder / "policy/agents-000000.safetensors", "wb") as file:
        np.save(file, np.array([Bomb()], object), allow_pickle=True)
    (tmp_path / "ran").unlink(missing_ok=True)
    assert "damaged" in _refused(run_folder)
    assert not (tmp_path / "ran").exists()


def test_waves_are_joined_and_a_missing_one_is_noticed(tmp_path):
    tree = {"params": {"x": np.arange(5, dtype=np.float32)}}
    for first, last in ((0, 2), (2, 4), (4, 5)):
        save_weights(tmp_path, first, jax.tree.map(lambda x, part=slice(first, last): x[part], tree))
    np.testing.assert_array_equal(load_weights(tmp_path)["params"]["x"], np.arange(5))
    (tmp_path / "agents-000002.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights of agent 2"):
        load_weights(tmp_path)


def test_weights_of_smaller_waves_that_an_earlier_process_left_are_removed(tmp_path):
    tree = {"params": {"x": np.arange(6, dtype=np.float32)}}
    save_weights(tmp_path, 2, {"params": {"x": np.zeros(2, np.float32)}})
    save_weights(tmp_path, 6, {"params": {"x": np.zeros(1, np.float32)}})
    save_weights(tmp_path, 0, tree)
    assert load_weights(tmp_path)["params"]["x"].shape == (7,)


def test_policy_holds_no_time_host_or_path(tmp_path):
    """Equal parameters give equal bytes, wherever and whenever they are written."""
    for name in ("one", "two"):
        save_weights(tmp_path / name, 0, {"params": {"x": np.zeros(2, np.float32)}})
        save_policy(tmp_path / name, Config(), make("Pendulum-v1"), num_agents=2, diverged_agents=[])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    assert set(json.loads((tmp_path / "one/policy.json").read_text())) == {
        "format", "num_agents", "observation_size", "low", "high", "diverged_agents", "best_agent", "config"
    }  # fmt: skip
