"""Tests exported policies, one file that needs only JAX."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax import export, load_policy
from ddpg_jax.config import Config
from ddpg_jax.training.policy import Policy
from ddpg_jax.training.setup_factory import make_algorithm

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)

ALONE = """
import sys
import jax, jax.export, numpy as np
for size in (1, 7):
    observations = np.load(sys.argv[3])[:size]
    np.save(f"{sys.argv[2]}-{size}.npy", eval(sys.argv[4]))
assert not any(name.startswith(("ddpg_jax", "flax", "gymnax")) for name in sys.modules)
assert set(jax.export.deserialize(open(sys.argv[1], "rb").read()).platforms) == {"cpu", "cuda"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four untrained agents, the last of which is the best."""
    config = Config(hidden_sizes=(8,), normalize_observations=True)
    actor = make_algorithm(config, (-2.0,), (2.0,)).actor
    variables = jax.vmap(lambda key: actor.init(key, jnp.zeros((1, 3))))(jax.random.split(jax.random.key(0), 4))
    variables = jax.tree.map(lambda x: 30 * x, variables)  # so that the agents, and their statistics, differ
    path = tmp_path_factory.mktemp("export")
    Policy("Pendulum-v1", 3, actor, variables, best_agent=3, config=config).save(path)
    return path


@pytest.mark.parametrize("agents", ["best", "all", "2"])
def test_exported_policy_runs_without_this_package_as_is_printed(folder, tmp_path, agents, capsys):
    file, seen = tmp_path / "policy", tmp_path / "observations.npy"
    assert export.main([str(folder), "--agents", agents, "--out", str(file)]) == 0
    printed = capsys.readouterr().out
    assert f": {4 if agents == 'all' else 1} agent" in printed
    np.save(seen, OBSERVATIONS)
    words = [sys.executable, "-c", ALONE, file, tmp_path / "actions", seen, printed.partition("read it with ")[2]]
    subprocess.run(words, check=True, cwd=tmp_path)
    expected = load_policy(folder, int(agents) if agents.isdecimal() else agents)
    for size in (1, 7):
        np.testing.assert_allclose(
            np.load(tmp_path / f"actions-{size}.npy"), expected(OBSERVATIONS[:size]), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "run_folder is none, but must be the folder of a finished run"),
        (["RUN", "--agents", "9"], "agents is 9, but must be numbers of 0 to 3"),
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
