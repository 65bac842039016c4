"""The command with networks of the user: trained, resumed, evaluated and exported by the names of their classes."""

import json

import pytest
from command import execute

MODULE = """
import flax.linen as nn
import jax.numpy as jnp

class Own(nn.Module):
    low: tuple
    high: tuple
    hidden_sizes: tuple = ()

    @nn.compact
    def __call__(self, observation, train=False):
        x = observation
        for size in self.hidden_sizes:
            x = jnp.sin(nn.Dense(size, name=f"sine_{size}")(x))
        return jnp.asarray(self.high) * jnp.tanh(nn.Dense(len(self.low))(x))

class Value(nn.Module):
    @nn.compact
    def __call__(self, observation, action, train=False):
        return nn.Dense(1)(jnp.concatenate([observation, action], axis=-1))[..., 0]
"""


@pytest.mark.slow
def test_networks_are_trained_and_found_again_by_resume_evaluate_and_export(tmp_path):
    home, away = tmp_path / "home", tmp_path / "away"
    for folder in (home, away):
        folder.mkdir()
    (home / "own_networks.py").write_text(MODULE)
    words = ("--actor", "own_networks:Own", "--critic", "own_networks:Value", "--seeds", "2", "--out", tmp_path / "run")
    done = execute(*words, "--hidden-sizes", "6", folder=home)
    assert done.status == 0, done.err
    policy = json.loads((tmp_path / "run/policy/policy.json").read_text())
    assert (policy["network"], policy["config"]["actor"]) == ("config", "own_networks:Own")
    assert b"params/sine_6/kernel" in (tmp_path / "run/policy/actors.safetensors").read_bytes()
    for command, words in (("run", ("--resume", tmp_path / "run", "--total-steps", "260")),
                           ("evaluate", (tmp_path / "run",)), ("export", (tmp_path / "run",))):  # fmt: skip
        done = execute(*words, folder=away, module=command)
        assert done.status == 0, done.err
    assert (tmp_path / "run/policy.jax_export").is_file()
    done = execute(tmp_path / "run", "--format", "onnx", folder=away, module="export")
    assert done.status == 2
    assert "error: network is own_networks.Own, but must be one of ddpg_jax's to become ONNX: convert" in done.err
    done = execute("--resume", tmp_path / "run", "--actor", "own_networks:Other", folder=home)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "actor is own_networks:Other, but must be own_networks:Own, as in" in done.err
