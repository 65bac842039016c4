"""Tests the options that the programs give to XLA, which knows them and changes no bit by them, and the devices."""

import itertools
import os
import re
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import follow, small_config

from ddpg_jax import api
from ddpg_jax.population import compiler, programs
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.blocks import Population, agent_keys
from ddpg_jax.population.programs import Placement
from ddpg_jax.presets import PRESETS
from ddpg_jax.processes import devices


@pytest.fixture
def lowered():
    return jax.jit(jnp.sin).lower(1.0)


class Recording:
    """A program that records the options with which it was compiled, and may refuse them."""

    def __init__(self, error: str | None = None) -> None:
        self.asked: list[dict | None] = []
        self.error = error

    def compile(self, compiler_options: dict | None = None) -> str:
        self.asked.append(compiler_options)
        if self.error is not None and compiler_options:
            raise jax.errors.JaxRuntimeError(self.error)
        return "compiled"


def test_this_xla_knows_the_options(lowered):
    options = compiler.CPU_OPTIONS | compiler.EIGEN_PRODUCTS
    assert lowered.compile(compiler_options=options)(0.0) == 0.0


def test_an_option_that_xla_does_not_know_is_left_out(lowered, monkeypatch):
    monkeypatch.setattr(compiler, "CPU_OPTIONS", {"xla_cpu_an_option_that_is_gone": True})
    assert compiler.compiled(lowered, "cpu", ())(0.0) == 0.0


def test_another_error_is_not_taken_for_an_unknown_option():
    program = Recording("RESOURCE_EXHAUSTED: out of memory")
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        compiler.compiled(program, "cpu", ())
    assert program.asked == [compiler.CPU_OPTIONS]


def test_options_of_the_cpu_are_for_the_cpu():
    program = Recording()
    assert compiler.compiled(program, "gpu", kernels(64)) == "compiled"
    assert program.asked == [None]


def kernels(*widths):
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in itertools.pairwise((3, *widths))]


@pytest.mark.parametrize(
    ("widths", "by_eigen"),
    [
        ((128, 64, 1), True),
        ((400, 300, 1), True),
        ((8, 8, 1), False),
        ((16, 32), True),
        ((64, 256, 1), False),
        ((128, 128, 1), False),
        ((128, 320, 1), True),
    ],
)
def test_products_are_eigens_but_for_narrow_and_colliding_layers(widths, by_eigen):
    options = compiler.cpu_options(kernels(*widths))
    assert options == compiler.CPU_OPTIONS | (compiler.EIGEN_PRODUCTS if by_eigen else {})


@pytest.mark.parametrize(("width", "by_eigen"), [(64, True), (128, False), (256, False)])
def test_training_program_has_the_products_that_its_networks_call_for(width, by_eigen):
    config = small_config(hidden_sizes=(width, width))
    placement = Placement(tuple(jax.devices()[:1]), 1)
    made = programs.compile_programs(make_setup(config, follow()), placement, max_steps=4, num_starts=1)
    assert ("__ynn_fusion" in made.train.as_text()) != by_eigen


def test_options_change_no_bit_of_what_is_trained(monkeypatch):
    config = small_config(hidden_sizes=(32, 32), critic_l2=0.1)
    hyperparameters = jax.tree.map(lambda x: np.full(1, x, np.float32), make_hyperparameters(config))
    found = []
    for options in (compiler.CPU_OPTIONS, {}):
        monkeypatch.setattr(compiler, "CPU_OPTIONS", options)
        placement = Placement(tuple(jax.devices()[:1]), 1)
        compiled = programs.compile_programs(make_setup(config, follow()), placement, max_steps=40, num_starts=1)
        agents = Population(compiled, agent_keys(0, np.arange(1)), hyperparameters)
        losses = agents.advance(40).critic_loss
        assert np.all(losses[0, -20:] > 0)
        found.append([leaf.tobytes() for leaf in jax.tree.leaves((losses, agents.agents(lambda state: state)))])
    assert found[0] == found[1]


def test_python_api_keeps_compiled_programs_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        with mock.patch.object(api, "_compiled", side_effect=InterruptedError), pytest.raises(InterruptedError):
            api.train(PRESETS["pendulum"], num_agents=1)
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "ddpg_jax" / "compiled")
        jax.config.update("jax_compilation_cache_dir", "/elsewhere")
        devices.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "/elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


USE = """
import jax
import ddpg_jax

ddpg_jax.use_all_cores(2)
print(jax.device_count())
ddpg_jax.use_all_cores(2)  # again, as a notebook's cell
try:
    ddpg_jax.use_all_cores(3)
except RuntimeError as error:
    print(error)
"""


def test_all_cores_are_used_from_python():
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "2",
        "JAX has started with 2 CPU device(s), but 3 are requested: call ddpg_jax.use_all_cores() before JAX's first "
        "operation, in a notebook after a restart of the kernel",
    ]


def test_unused_cores_are_noted(monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: len(jax.devices()) + 2)
    devices_here = len(jax.devices())
    note = (
        f"{devices_here + 1} agents train on {devices_here} of {devices_here + 2} cores: call ddpg_jax.use_all_cores()"
    )
    with pytest.warns(UserWarning, match=re.escape(note)) as noted:
        api.train(small_config(total_steps=50), num_agents=devices_here + 1)
    assert noted[0].filename == __file__
    assert devices.unused_cores(1) is None


@pytest.mark.slow
def test_threads_of_xla_change_no_bit_of_the_default_preset(tmp_path):
    """Those of larger networks they do change (docs/performance.md)."""
    flags = {"total-steps": 900, "learning-starts": 300, "eval-every": 900, "devices": 1, "seeds": 1}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    tables = []
    for threads in ("1", "2", "3"):
        command = [sys.executable, "-m", "ddpg_jax.run", *words, "--quiet", "--out", str(tmp_path / threads)]
        subprocess.run(command, env=os.environ | {"PJRT_NPROC": threads}, check=True)
        tables.append((tmp_path / threads / "metrics.csv").read_bytes())
    assert tables[0] == tables[1] == tables[2]
