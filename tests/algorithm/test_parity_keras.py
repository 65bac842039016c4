"""Compares the preset `keras` with the Keras tutorial's networks and update, run by Keras 3 on its JAX backend."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from parity import pendulum_batches

import ddpg_jax


def test_200_updates_end_where_keras_ends(tmp_path):
    np.savez(tmp_path / "batches.npz", **pendulum_batches(200, 64)._asdict())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "KERAS_"))}
    package = Path(ddpg_jax.__file__).parents[1]
    environment |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(package)}
    command = [sys.executable, str(Path(__file__).with_name("parity_keras.py")), str(tmp_path / "batches.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "compared 72 tensors after 200 updates"  # 6 and 12, each as 4
