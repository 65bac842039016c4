"""Tests exported policies: the best agent, and one file that needs only JAX."""

import json
import subprocess
import sys

import numpy as np
import pytest
from command import main

from ddpg_jax import export, load_policy
from ddpg_jax.environments.registry import make


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    assert main("--out", folder, "--seeds", 4).status == 0
    return folder


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


@pytest.mark.parametrize("agents", ["best", "all", "2"])
def test_exported_policy_runs_without_this_package_as_is_printed(run, tmp_path, agents, capsys):
    file, seen = tmp_path / "policy", tmp_path / "observations.npy"
    assert export.main([str(run), "--agents", agents, "--out", str(file)]) == 0
    how_to_read = capsys.readouterr().out.partition("read it with ")[2]
    np.save(seen, OBSERVATIONS)
    words = [sys.executable, "-c", ALONE, file, tmp_path / "actions", seen, how_to_read]
    subprocess.run(words, check=True, cwd=tmp_path)
    expected = load_policy(run, int(agents) if agents.isdecimal() else agents)
    for size in (1, 7):
        np.testing.assert_allclose(
            np.load(tmp_path / f"actions-{size}.npy"), expected(OBSERVATIONS[:size]), rtol=1e-5, atol=1e-6
        )


def test_best_agent_is_chosen_on_other_states_than_those_reported(run):
    summary = json.loads((run / "summary.json").read_text())
    selection = summary["per_agent_selection_return"]
    assert summary["best_agent"] == load_policy(run).best_agent == int(np.argmax(selection))
    assert not np.allclose(selection, summary["per_agent_final_return"])
    environment = make("Pendulum-v1")
    chosen, reported = (
        np.asarray(starts(512)[1]) for starts in (environment.selection_starts, environment.evaluation_starts)
    )
    assert not (chosen[:, None] == reported[None]).all(axis=2).any()


def test_some_agents_are_taken_from_all(run):
    every = load_policy(run)
    np.testing.assert_array_equal(load_policy(run, [3, 1])(OBSERVATIONS), every(OBSERVATIONS)[np.array([3, 1])])
    np.testing.assert_array_equal(load_policy(run, "best")(OBSERVATIONS)[0], every(OBSERVATIONS)[every.best_agent])
    some = every.select([every.best_agent])
    assert (some.num_agents, some.best_agent) == (1, 0)
    with pytest.raises(ValueError, match=r"agents are \[4\], but must be of 0 to 3"):
        load_policy(run, 4)
    with pytest.raises(ValueError, match="must be 'all', 'best' or numbers"):
        load_policy(run, "worst")


def test_agent_that_diverged_is_not_the_best(tmp_path):
    assert main("--out", tmp_path / "run", "--seeds", 2, "--sweep", "critic_lr=1e30,1e-3").status == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["diverged_agents"] == [0, 1]
    assert summary["best_agent"] in (2, 3)
    assert main("--out", tmp_path / "lost", "--seeds", 2, "--critic-lr", 1e30).status == 1
    assert json.loads((tmp_path / "lost/summary.json").read_text())["best_agent"] is None
    with pytest.raises(ValueError, match="names no best agent"):
        load_policy(tmp_path / "lost", "best")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "none has no policy"),
        (["RUN", "--agents", "first"], "agents is 'first', but must be best, all or the number of an agent"),
        (["RUN", "--agents", "9"], "agents are [9], but must be of 0 to 3"),
        (["RUN", "--out", "no/such/\0/file"], "null"),
    ],
)
def test_bad_input_is_refused_in_a_line(run, words, message, capsys):
    assert export.main([str(run) if word == "RUN" else word for word in words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
