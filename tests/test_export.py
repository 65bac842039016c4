"""Tests exported policies, files that need only JAX or an ONNX runtime."""

import json
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax.traverse_util import path_aware_map
from onnx.reference import ReferenceEvaluator

import ddpg_jax
from ddpg_jax import export, load_policy
from ddpg_jax.config import Config
from ddpg_jax.training.onnx import to_onnx
from ddpg_jax.training.policy import Policy
from ddpg_jax.training.setup_factory import make_algorithm

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)

ALONE = """
import sys
import jax, jax.export, numpy as np
everything = np.load("observations.npy")
for name, printed in zip(sys.argv[1::2], sys.argv[2::2]):
    for size in (1, 7):
        observations = everything[:size]
        np.save(f"{name}-{size}.npy", eval(printed))
    assert set(jax.export.deserialize(open(name, "rb").read()).platforms) == {"cpu", "cuda"}
assert not any(name.startswith(("ddpg_jax", "flax", "gymnax")) for name in sys.modules)
"""


def untrained(config, num_agents=1, low=(-2.0,), high=(2.0,), **fields):
    """Agents that all differ, with statistics of observations and layers that have moved."""
    actor = make_algorithm(config, low, high).actor
    variables = jax.vmap(lambda key: actor.init(key, jnp.zeros((1, 3))))(
        jax.random.split(jax.random.key(0), num_agents)
    )
    rng = np.random.default_rng(1)

    def moved(path, leaf):
        drawn = rng.uniform(0.2, 1.0, leaf.shape) * (rng.choice([-1, 1], leaf.shape) if path[0] == "params" else 1)
        return jnp.asarray(drawn / (leaf.shape[1] ** 0.5 if path[-1] == "kernel" else 1), jnp.float32)

    return Policy("Pendulum-v1", 3, actor, path_aware_map(moved, variables), config=config, **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four untrained agents, the last of which is the best, and the third has diverged."""
    path = tmp_path_factory.mktemp("export")
    config = Config(hidden_sizes=(8,), normalize_observations=True)
    untrained(config, 4, best_agent=3, diverged_agents=(2,)).save(path)
    return path


def test_exported_policies_run_without_this_package_as_is_printed(folder, tmp_path, capsys):
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    words = []
    for agent in ("best", "all", "1"):
        assert export.main([str(folder), "--agent", agent, "--out", str(tmp_path / agent)]) == 0
        printed = capsys.readouterr().out
        assert f": {4 if agent == 'all' else 1} agent" in printed
        words += [agent, printed.partition("read it with ")[2]]
    subprocess.run([sys.executable, "-c", ALONE, *words], check=True, cwd=tmp_path)
    for name, agents in (("best", "best"), ("all", "all"), ("1", 1)):
        policy = load_policy(folder, agents)
        for size in (1, 7):
            actions = np.load(tmp_path / f"{name}-{size}.npy")
            np.testing.assert_allclose(actions, policy(OBSERVATIONS[:size]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "run_folder is none, but must be the folder of a finished run"),
        (["RUN", "--agent", "9"], "agent is 9, but must be best, all or a number of 0 to 3"),
        (["RUN", "--agent", "2"], "agent is 2, which diverged in training, but must be one that did not"),
        (["RUN", "--format", "torch"], "format is 'torch', but must be one of jax, onnx"),
        (["RUN", "--out", "no/such/\0/file"], "null"),
    ],
)
def test_bad_input_is_refused_in_a_line(folder, words, message, capsys):
    try:
        status = export.main([str(folder) if word == "RUN" else word for word in words])
    except SystemExit as stop:  # of a value that its field refuses
        status = stop.code
    assert status == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


# ONNX


def run_onnx(model, observations):
    """Returns the actions of ONNX's own reference implementation."""
    (actions,) = ReferenceEvaluator(model).run(None, {"observation": observations})
    return actions


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_sizes": (8,)},  # whose batch is on the last axis in JAX
        {"actor_normalization": "layer"},
        {"actor_normalization": "batch", "normalize_observations": True},
        {"action_bound": "sigmoid"},
        {"matmul_dtype": "bfloat16"},
        {"hidden_layers": "residual", "hidden_sizes": (32, 32)},
        {"hidden_sizes": ()},
    ],
    ids=str,
)
def test_onnx_computes_the_same_actions_for_any_number_of_observations(changes):
    policy = untrained(Config(**{"hidden_sizes": (64, 32)} | changes), low=(-2.0, 0.1), high=(2.0, 0.7))
    model = onnx.load_from_string(to_onnx(policy))
    for observations in (OBSERVATIONS[:1], 20 * OBSERVATIONS):
        actions = run_onnx(model, observations)
        assert (actions.dtype, actions.shape) == (np.float32, (len(observations), 2))
        np.testing.assert_allclose(actions, policy(observations)[0], rtol=0, atol=1e-5)
    assert np.std(actions, axis=0).min() > 0.01  # it does depend on them


def test_actions_in_onnx_stay_inside_bounds_that_are_float64():
    policy = untrained(Config(hidden_sizes=(8,)), low=(-0.1,), high=(0.1,))  # the float32 next to 0.1 is above it
    actions = run_onnx(onnx.load_from_string(to_onnx(policy)), 1e6 * OBSERVATIONS)
    np.testing.assert_allclose((actions.min(), actions.max()), (-0.1, 0.1), rtol=1e-6)
    assert (np.abs(actions.astype(np.float64)) <= 0.1).all()


def test_onnx_file_says_what_it_is_for(folder, tmp_path, capsys):
    assert export.main([str(folder), "--format", "onnx", "--out", str(tmp_path / "a.onnx")]) == 0
    model = onnx.load(tmp_path / "a.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    shapes = {each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
              for each in (*model.graph.input, *model.graph.output)}  # fmt: skip
    assert shapes == {"observation": ["B", 3], "action": ["B", 1]}
    about = {each.key: each.value for each in model.metadata_props}
    assert Config.from_dict(json.loads(about.pop("config"))) == load_policy(folder).config
    assert about == {
        "env_id": "Pendulum-v1", "agent": "3", "observation_size": "3", "action_size": "1", "action_low": "[-2.0]",
        "action_high": "[2.0]", "action_units": "those of the environment", "ddpg_jax": ddpg_jax.__version__,
    }  # fmt: skip
    assert f"{tmp_path / 'a.onnx'}: agent 3, observations [B, 3] to actions [B, 1]\n" in capsys.readouterr().out


def test_all_agents_become_a_file_each_without_those_that_diverged(folder, tmp_path, capsys):
    assert export.main([str(folder), "--format", "onnx", "--agent", "all", "--out", str(tmp_path)]) == 0
    assert "left out: agents 2, which diverged in training" in capsys.readouterr().out
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["agent-000000.onnx", "agent-000001.onnx", "agent-000003.onnx"]
    for index, file in zip((0, 1, 3), files, strict=True):
        actions = run_onnx(onnx.load(tmp_path / file), OBSERVATIONS)
        np.testing.assert_allclose(actions, load_policy(folder)(OBSERVATIONS)[index], rtol=0, atol=1e-5)


class OwnActor(nn.Module):
    """An actor that the package does not know."""

    low: tuple[float, ...] = (-2.0,)
    high: tuple[float, ...] = (2.0,)

    @nn.compact
    def __call__(self, observation, train=False):
        return 2 * jnp.tanh(nn.Dense(1)(observation))


def test_network_of_ones_own_is_refused_by_name_with_what_to_do():
    actor = OwnActor()
    variables = jax.tree.map(lambda leaf: leaf[None], actor.init(jax.random.key(0), jnp.zeros((1, 3))))
    with pytest.raises(ValueError, match=r"network is test_export\.OwnActor, .*jax2onnx.*docs/policies\.md"):
        to_onnx(Policy("Pendulum-v1", 3, actor, variables))


def test_only_one_agent_that_has_not_diverged_becomes_onnx(folder):
    policy = load_policy(folder)
    with pytest.raises(ValueError, match=r"policy has 4 agents, but must have one: policy\.best or policy\[0\]"):
        to_onnx(policy)
    with pytest.raises(ValueError, match="agent 2 diverged in training"):
        to_onnx(policy[2])


# The page about policies outside of training


def run_block(heading, folder, monkeypatch):
    """Runs the first Python block below a heading, where `runs/pendulum` is that folder; returns its names."""
    page = (Path(__file__).parent.parent / "docs/policies.md").read_text()
    block = re.search(r"^```py\n(.*?)^```", page.partition(f"\n## {heading}\n")[2], re.MULTILINE | re.DOTALL)[1]
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(block, heading, "exec"), names)
    return names


@pytest.mark.slow
def test_onnx_runtime_computes_what_the_page_says(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    policy = untrained(Config(hidden_sizes=(8,), actor_normalization="layer"), 2, best_agent=1)
    policy.save(tmp_path / "runs/pendulum/policy")
    assert export.main([str(tmp_path / "runs/pendulum"), "--format", "onnx"]) == 0
    names = run_block("ONNX", tmp_path, monkeypatch)
    np.testing.assert_allclose(names["actions"], policy[1](names["observations"])[0], rtol=0, atol=1e-5)
    assert names["about"]["env_id"] == "Pendulum-v1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"actor_normalization": "layer", "action_bound": "sigmoid"},
        {"actor_normalization": "batch", "normalize_observations": True},
    ],
    ids=str,
)
def test_pytorch_on_the_page_computes_the_same_actions(changes, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    policy = untrained(
        Config(**{"hidden_sizes": (64, 32)} | changes), 2, low=(-2.0, 0.1), high=(2.0, 0.7), best_agent=1
    )
    policy.save(tmp_path / "runs/pendulum/policy")
    network = run_block("PyTorch", tmp_path, monkeypatch)["policy"]
    assert isinstance(network, torch.nn.Sequential)
    actions = network(torch.from_numpy(20 * OBSERVATIONS)).detach().numpy()
    np.testing.assert_allclose(actions, policy[1](20 * OBSERVATIONS)[0], rtol=0, atol=1e-5)
    assert np.std(actions, axis=0).min() > 1e-3
