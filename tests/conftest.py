"""Lets all tests, and the commands that they start, share compiled programs for as long as the tests run."""

import os
import shutil
import tempfile

import pytest

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else by the process that has started this one
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ddpg_jax-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    OWN_CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"]
else:
    OWN_CACHE = None


@pytest.fixture(scope="session", autouse=True)
def one_device():
    """Starts JAX with one device: with those of all cores, which `ddpg_jax.train` would take, programs are others."""
    import jax

    jax.devices()


def pytest_sessionfinish():
    if OWN_CACHE is not None:
        shutil.rmtree(OWN_CACHE, ignore_errors=True)
