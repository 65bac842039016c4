"""Measures the peak of a machine's arithmetic, with which the benchmarks compare."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from record import HERE


def make_peak(used: Sequence[jax.Device], folder: Path) -> tuple[Callable[[], float], str]:
    """Returns a function that measures the peak in GFLOP/s, and the name of the method.

    The method is multiply-adds in C on a CPU where there is a compiler, and a matrix product elsewhere.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if used[0].platform == "cpu" and compiler:
        program = folder / "fma_peak"
        command = [compiler, "-O3", "-march=native", str(HERE / "fma_peak.c"), "-o", str(program)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return partial(c_peak, program, len(used)), "float32 multiply-adds of all cores at once (C)"
    size = 2048 if used[0].platform == "cpu" else 8192
    matrices = [jax.device_put(jnp.ones((size, size), jnp.float32), device) for device in used]
    return partial(product_peak, matrices), f"a {size} x {size} matrix product (XLA)"


def c_peak(program: Path, num_cores: int) -> float:
    """Returns the sum over the cores, which all run the C program at the same time, in GFLOP/s."""
    cores = sorted(available_cores())[:num_cores]
    running = [subprocess.Popen([program, str(core)], stdout=subprocess.PIPE, text=True) for core in cores]
    return sum(float(process.communicate()[0]) for process in running)


def available_cores() -> set[int]:
    """Returns the numbers of the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@jax.jit
def _product(matrix: jax.Array) -> jax.Array:
    return matrix @ matrix


def product_peak(matrices: Sequence[jax.Array]) -> float:
    """Returns the best of five measurements in GFLOP/s, with one product per device at the same time."""
    jax.block_until_ready([_product(matrix) for matrix in matrices])
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready([_product(matrix) for matrix in matrices])
        best = max(best, len(matrices) * 2 * matrices[0].shape[0] ** 3 / (time.perf_counter() - start) / 1e9)
    return best


def product_precision(device: jax.Device) -> str:
    """Returns the precision in which float32 matrix products are really computed, judged by their error."""
    a, b = np.random.default_rng(0).standard_normal((2, 256, 256), np.float32)
    found = np.asarray(jnp.matmul(jax.device_put(a, device), jax.device_put(b, device)), float)
    exact = a.astype(float) @ b.astype(float)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    name = "float32" if error < 1e-5 else "TF32" if error < 1e-3 else "bfloat16"
    return f"{name} (relative error {error:.0e})"
