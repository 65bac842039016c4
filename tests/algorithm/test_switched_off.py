"""With all switches of the DDPG family off, the program is that of plain DDPG.

`ddpg_programs.json` was recorded at the commit before the first switch, and again after each change to plain DDPG
itself (`python tests/test_switched_off.py` writes it). Equal input to XLA gives equal optimised programs and equal
bits.
"""

import hashlib
import json
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpg_jax
from ddpg_jax.algorithm import loop

RECORDED = Path(__file__).parent / "ddpg_programs.json"
PRESETS = ("pendulum", "keras", "gist", "gist_corrected", "paper")


def program(config: ddpg_jax.Config) -> str:
    """The program that trains an agent as XLA is given it, without names."""
    setup = ddpg_jax.make_setup(config, ddpg_jax.make(config.env_id))
    hyperparameters = jax.tree.map(np.float32, ddpg_jax.make_hyperparameters(config))
    state = jax.eval_shape(partial(loop.init, setup=setup), jax.random.key(0), hyperparameters)
    lowered = jax.jit(partial(loop.train, setup=setup, max_steps=10)).lower(state, hyperparameters, jnp.int32(10))
    text = re.sub(r"jax\.result_info = \"[^\"]*\"", "", lowered.as_text())
    names: dict[str, str] = {}
    return re.sub(r"@[\w.]+", lambda match: names.setdefault(match[0], f"@f{len(names)}"), text)


def fingerprint(config: ddpg_jax.Config) -> str:
    return hashlib.sha256(program(config).encode()).hexdigest()


@pytest.mark.parametrize("preset", PRESETS)
def test_program_is_that_of_plain_ddpg(preset):
    recorded = json.loads(RECORDED.read_text())
    if jax.__version__ != recorded["jax"]:
        pytest.skip(f"the programs were recorded with JAX {recorded['jax']}")
    assert fingerprint(ddpg_jax.PRESETS[preset]) == recorded[preset]


def test_another_program_is_noticed():
    config = ddpg_jax.PRESETS["pendulum"]
    assert fingerprint(config.replace(noise_reset=False)) != fingerprint(config)


if __name__ == "__main__":
    prints = {preset: fingerprint(ddpg_jax.PRESETS[preset]) for preset in PRESETS}
    RECORDED.write_text(json.dumps({"jax": jax.__version__, **prints}, indent=2) + "\n")
