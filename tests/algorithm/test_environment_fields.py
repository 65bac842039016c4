"""Tests what an `Environment` accepts: each field is refused by name, with its value and its rule."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from toy_environments import counter

from ddpg_jax.algorithm.environment import Environment

COUNTER = counter()


def made(**changes) -> Environment:
    fields = {"env_id": "own", "observation_size": 1, "low": (-1.0,), "high": (1.0,), "max_steps": 9}
    return Environment(**{**fields, "reset": COUNTER.reset, "step": COUNTER.step, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": -1.0}, "low is -1.0, but must be numbers, one per action, such as (-1.0,)"),
        ({"high": ("a",)}, "high is ('a',), but must be numbers, one per action"),
        ({"low": ()}, "low is (), but must be finite numbers (as float32), one per action"),
        ({"high": (np.nan,)}, "high is (nan,), but must be finite numbers"),
        ({"high": (1.0, 2.0)}, "high is (1.0, 2.0), but must be 1 numbers, like low"),
        ({"high": (-1.0,)}, "high is (-1.0,), but must be above low"),
        ({"low": (1.0,), "high": (1.0 + 1e-9,)}, "but must be above low, (1.0,), in each action (as float32)"),
        ({"low": (1e300,), "high": (2e300,)}, "low is (1e+300,), but must be finite numbers (as float32)"),
        ({"max_steps": None}, "max_steps is None, but must be a whole number >= 1"),
        ({"max_steps": float("inf")}, "max_steps is inf, but must be a whole number >= 1"),
        ({"max_steps": 1.5}, "max_steps is 1.5, but must be a whole number >= 1"),
        ({"observation_size": "3"}, "observation_size is '3', but must be a whole number >= 1"),
    ],
)
def test_wrong_field_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        made(**changes)


def test_numbers_of_any_type_are_numbers():
    environment = made(max_steps=np.int64(9), observation_size=1.0, low=np.float32([-1]), high=jnp.ones(1))
    assert environment == made()
    assert hash(environment) == hash(made())
    assert [type(x) for x in (environment.max_steps, environment.observation_size)] == [int, int]
