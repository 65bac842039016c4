"""Tests the programs that XLA compiles on a CPU: no copy of the replay, and no more operations than recorded."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hlo import learning_loop, replay_copies

from ddpg_jax.environments.registry import task_of
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.programs import Placement, compile_programs
from ddpg_jax.training.setup_factory import make_hyperparameters, make_setup

RECORDED = Path(__file__).parent / "compiled_operations.json"
CAPACITY = 7916
"""A number that is no other array's size, and a multiple of the environments of every preset."""


def training_text(preset: str) -> str:
    """Returns the compiled training program of a preset for one agent."""
    config = PRESETS[preset].replace(replay_capacity=CAPACITY)
    programs = compile_programs(
        make_setup(config),
        Placement(tuple(jax.devices()[:1]), 1),
        starts=task_of(config).evaluation_starts(2),
        hyperparameters=jax.tree.structure(make_hyperparameters(config)),
    )
    return programs.train.as_text()


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_training_copies_no_replay_and_launches_no_more_than_recorded(preset):
    recorded = json.loads(RECORDED.read_text())
    text = training_text(preset)
    assert replay_copies(text, CAPACITY, in_loops=False) == []
    if jax.__version__ != recorded["jax"]:
        pytest.skip(f"the operations were recorded with JAX {recorded['jax']}")
    assert learning_loop(text).launches.total() <= recorded["operations"][preset]


def test_a_copy_outside_of_loops_is_noticed():
    program = jax.jit(lambda rows: rows[::-1]).lower(jnp.zeros((CAPACITY, 6))).compile()
    assert len(replay_copies(program.as_text(), CAPACITY, in_loops=False)) == 1


if __name__ == "__main__":  # records them: PYTHONPATH=benchmarks python tests/algorithm/test_compiled.py
    operations = {preset: learning_loop(training_text(preset)).launches.total() for preset in PRESETS}
    RECORDED.write_text(json.dumps({"jax": jax.__version__, "operations": operations}, indent=2) + "\n")
    sys.stdout.write(RECORDED.read_text())
