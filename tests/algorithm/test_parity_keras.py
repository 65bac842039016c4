"""Compares the preset `keras` with the Keras tutorial's networks and update, run by Keras 3 on its JAX backend."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from parity_data import pendulum_batches

import ddpg_jax

UPDATES = 200


@functools.cache
def batches() -> dict[str, np.ndarray]:
    return pendulum_batches(UPDATES, 64)._asdict()


@functools.cache
def report(floatx: str) -> dict:
    """Runs `parity_keras.py` in a separate process, because Keras's backend and x64 apply to a whole process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "KERAS_"))}
    environment |= {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(ddpg_jax.__file__).parents[1]),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "batches.npz")
        np.savez(path, **batches())
        program = Path(__file__).with_name("parity_keras.py")
        command = [sys.executable, str(program), floatx, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def too_far(deviations: dict[str, float], limit: float) -> dict[str, float]:
    return {name: deviation for name, deviation in deviations.items() if not deviation <= limit}


def test_200_updates_in_float64_end_where_keras_ends():
    """They agree to rounding, which is far below the 1e-6 (tensors) and 1e-7 (losses) that are promised."""
    measured = report("float64")
    assert measured["dtypes"] == ["float64"]
    assert too_far(measured["weights"], 1e-10) == {}
    assert too_far(measured["moments"], 1e-10) == {}
    assert len(measured["losses"]) == UPDATES
    assert np.max(measured["losses"]) <= 1e-10
    assert min(measured["moved"].values()) > 0.01  # all tensors have learned


@pytest.mark.slow
def test_200_updates_in_float32_end_where_keras_ends():
    measured = report("float32")
    assert measured["dtypes"] == ["float32"]
    assert too_far(measured["weights"], 1e-4) == {}
    assert min(measured["moved"].values()) > 0.01
