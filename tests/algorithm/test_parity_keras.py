"""Compares the preset `keras` with the Keras tutorial's networks and update, run by Keras 3 on its JAX backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from parity_data import pendulum_batches

import ddpg_jax

UPDATES = 200


def test_200_updates_end_where_keras_ends(tmp_path):
    """In float64 they agree to rounding."""
    np.savez(tmp_path / "batches.npz", **pendulum_batches(UPDATES, 64)._asdict())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "KERAS_"))}
    package = Path(ddpg_jax.__file__).parents[1]
    environment |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(package)}
    command = [sys.executable, str(Path(__file__).with_name("parity_keras.py")), str(tmp_path / "batches.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["dtypes"] == ["float64"]
    assert {name: far for name, far in measured["tensors"].items() if not far <= 1e-10} == {}
    assert np.shape(measured["losses"]) == (UPDATES, 2)
    assert np.max(measured["losses"]) <= 1e-10
    assert min(measured["moved"].values()) > 0.01  # all tensors have learned
